// Package credential hands gateways what a backend's request must carry
// (CredentialService.GetCredential, ReportRejected).
//
//	access token ─▶ digest, backend ─▶ Verify ─▶ session ─▶ strategy ─▶ headers for one origin
//	                 (Plans)           (bearer)  (Memory)    │
//	                                                         ├ upstreamInject   connection's token (Memory ─▶ Tokens)
//	                                                         ├ tokenExchange    package exchange, of a connection's
//	                                                         │                  token, a minted one or the caller's
//	                                                         └ static           secrets of the deployment
//
// The gateway is not believed. It shows the caller's own access token, which is
// verified here: signature, type, issuer, expiry, and an audience that covers the
// backend; then that the session is active and belongs to the token's subject and
// client. Only then is anything opened. With an external issuer there are no
// sessions; in anonymous mode, which only this process's own configuration can
// say, there is no caller, and static strategies alone work.
//
// [Plans] prepares each set of resources once: verifier, exchanges, secrets. A
// secret that is missing refuses the set, and at start the process.
//
// [Memory] keeps what was opened lately, while it hears events: without a
// heartbeat for two seconds every call reads the database. An answer carries the
// position of the newest event that it has taken into account.
//
// Each credential that is issued or refused leaves an audit record; one that
// cannot be recorded is not issued.
//
// What it leaves out: WatchSessions (package watch), refreshing (package refresh)
// and the protocol of token services (package exchange).
package credential
