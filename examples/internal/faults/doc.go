// Package faults makes the demo's servers misbehave on request, so that a test
// can watch how their clients take it.
//
// A [Provider] sits in front of a token endpoint: it counts the requests by
// grant type and can answer with an error, a failure status, garbage, nothing
// at all, or do the work and lose the answer. A [Backend] sits in front of an
// MCP server: it can refuse credentials, be slow, or be down. Both are steered
// through an admin endpoint ([Admin]) on a loopback address of its own:
//
//	GET    /faults    what is switched on
//	PUT    /faults    switch on (JSON, replaces all)
//	DELETE /faults    switch everything off
//	GET    /requests  counts since the start or the last DELETE
//	DELETE /requests  count from zero
//
// A provider adds its own routes, such as POST /revoke-all.
//
// What it leaves out: authentication of the admin endpoint. It listens on
// loopback only, refuses requests that name another host or come from a web
// page, and never hands out a secret.
package faults
