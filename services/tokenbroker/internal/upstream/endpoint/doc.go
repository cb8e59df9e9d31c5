// Package endpoint makes one request to an endpoint of somebody else's OAuth
// server and says for certain what came of it.
//
//	Request ─▶ breaker ─▶ client authentication ─▶ outbound client ─▶ Response ─▶ read
//
// There are three outcomes. The read function accepted the answer; or the server
// said no (reason.UpstreamRefused, with its error code when that is a registered
// one); or nobody knows (reason.UpstreamUnavailable: network, deadline, 5xx, 429, an
// answer that is not one of the protocol). Nothing is ever sent twice, because a
// code or a refresh token may be spent by the first attempt.
//
// [ParseJSON] and [ParseForm] read answers strictly: valid UTF-8, no key twice,
// bounded depth, numbers kept as written. [Path] finds values in them.
//
// No error, span, metric or log record holds a byte that the server sent, except
// registered error codes, nor a secret that we sent.
//
// What it leaves out: retries, caches, and what the answers mean.
package endpoint
