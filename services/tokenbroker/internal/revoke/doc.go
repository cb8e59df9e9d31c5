// Package revoke gives tokens that nobody will use again back to their provider
// (RFC 7009), in the background and best effort.
//
//	erased row ──▶ Revoker.Add ──▶ bounded queue ──▶ worker: still unused? ──▶ open ──▶ provider
//
// Some providers answer a revocation by ending the whole grant, which other
// tokens of the same account rest on. So a token is left alone when, at the moment
// of the call, its account has a live connection, or a leg of a login that is under
// way. Tokens of a login that came to nothing are also left alone when their user has
// any connection in the realm: a failed chain cannot hurt what works. A connection that
// the person gives up is revoked although they have another account there.
//
// What is queued when the process dies is not revoked: the tokens are erased
// here already, and expire at the provider. The queue holds sealed tokens only.
//
// What it leaves out: retries, and deciding what is erased.
package revoke
