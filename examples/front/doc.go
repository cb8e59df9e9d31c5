// Package front is a small load balancer for the demo: an HTTP reverse proxy that
// sends each request to the next replica of one service.
//
// A [Front] asks DNS for the addresses behind a name, again every second, and
// takes them in turn, request by request: nothing ties a client, a connection or
// an MCP session to a replica. A replica that cannot be connected to is passed
// over, and left out for a few seconds; a request that reached one is never sent
// twice, since nobody but its author knows whether that is harmless. Answers are
// streamed as they come.
//
// What it leaves out: TLS, health checks of its own, weights, and requests that are
// streams: their bodies are read whole. In production
// this is your load balancer's place.
package front
