// Package caller says who makes a request.
//
// The resource server verifies a bearer token once, makes a [Caller] of its
// claims, and puts it into the request's context; everything behind it (the
// credential cache, the sealed session ids, the log line) reads it there:
//
//	bearer token ─▶ resource ─▶ caller.NewContext ─▶ credentials, sessionid, backend …
//
// A Caller is immutable and may be shared by the requests of one token.
//
// What it leaves out: verification (package resource) and permissions.
package caller
