// Package rpc is gRPC between our services: mutual TLS, named peers, deadlines.
//
// Who is who: a peer is named by the DNS SANs of its certificate, which our
// private authority signed. [NewServer] takes, for each gRPC service, the names
// that may call it; a service without an entry is refused to all. Health is open
// to any peer with a valid certificate; reflection only to ReflectionPeers.
// A client verifies the server by a fixed service name, not by its address.
//
// A call passes, on the server: tracing and metrics → recovery from panics →
// translation of errors (the cause is logged once with the trace's id, the
// public status goes out) → the default deadline → the peer check → protovalidate
// → the handler. On the client: default deadline → translation of the status into a
// [*fault.Error] → tracing → round robin over the addresses that DNS knows (or a
// given list), with retries on UNAVAILABLE only for methods that the caller declares idempotent.
//
// Certificates are read again when their files change. [Server.InProcess] is a
// connection for a REST gateway in the same process: calls on it pass the same
// checks in the name of the peer that [WithPeers] put into the context.
//
// What it leaves out: authorization inside a service, and any domain word.
package rpc
