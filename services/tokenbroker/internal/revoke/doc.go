// Package revoke gives tokens that nobody will use again back to their provider
// (RFC 7009), in the background, until the provider has heard.
//
//	erased row ──same transaction──▶ table revocations ──claim──▶ still unused? ──▶ open ──▶ provider
//	                                       ▲                                                  │
//	                                       └── later, with growing pauses ◀── no answer ──────┴──▶ row erased
//
// Whatever erases tokens queues them in its own transaction (package store), still
// sealed. [Revoker] claims rows that no other replica holds, for a lease that is longer
// than an attempt can take; the row of a replica that died is due again after it. The
// refresh token goes first (its access tokens go with it, RFC 7009, section 2.1, but
// not everywhere), then the access token. After a week it is given up, with an audit
// record.
//
// Some providers answer a revocation by ending the whole grant, which other
// tokens of the same account rest on. So a token is left alone when, at the moment
// of the call, its account has an active connection, or a leg of a login that is under
// way. Tokens of a login that came to nothing are also left alone when their user has
// any connection in the realm: a failed chain cannot hurt what works. A connection that
// the person gives up is revoked although they have another account there.
//
// What it leaves out: deciding what is erased, and providers whose revocation is not
// that of RFC 7009.
package revoke
