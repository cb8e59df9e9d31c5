// Package mcpserver is what the demo's three MCP servers share: the HTTP face of
// an MCP server that speaks both eras of the protocol.
//
// [Handler] puts one mcp.Server behind /mcp twice: requests that announce
// protocol version 2026-07-28 or later go to a stateless handler, all others to
// one with sessions. In front of both, a server may authenticate each HTTP
// request; who calls then reaches the tools as mcp.RequestExtra.TokenInfo, and a
// session belongs to whoever opened it. A refusal is an HTTP 401 or 403 with a
// challenge (RFC 6750 section 3), which is how a gateway notices that a
// credential is no good. Every MCP request is logged with its caller and counted;
// tokens never are.
//
// What it leaves out: a cache of authentications. Each request stands for itself,
// so that a revoked token is refused at once.
package mcpserver
