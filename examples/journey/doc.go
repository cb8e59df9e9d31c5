// Package journey is a headless MCP client's way to its tools, in the steps that
// the specifications describe: the challenge (RFC 9728), the two metadata
// documents (RFC 9728, RFC 8414), registration (RFC 7591), authorization with
// PKCE and a resource (RFC 7636, RFC 8707), the code's redemption, and MCP calls.
//
// Discover finds the endpoints, Register makes a Client, Client.Login walks a
// person's browser through the chain and returns a Login, and Login.Connect opens
// an MCP session with its access token. The demo, the benchmark and the
// end-to-end tests all use it; each step can also be taken alone, to take it wrongly.
//
// What it leaves out: keeping tokens, and a redirect listener. The browser of
// package browse stops in front of the redirect URI.
package journey
