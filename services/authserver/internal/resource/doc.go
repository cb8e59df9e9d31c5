// Package resource decides which resource indicators (RFC 8707) a token may be
// for, and which scopes.
//
// The protected resources are the deployment's: the aggregated endpoint and one
// per backend. The root of a host may be written with or without its slash. A
// client that names none gets the aggregated endpoint, which is what clients of
// the 2025-03-26 protocol version mean. At the token endpoint a client may narrow
// what it was granted, and a token for the aggregated endpoint covers every
// backend, so that it may be narrowed to one.
//
// Scopes are never refused: what is unknown or not the client's is left out.
package resource
