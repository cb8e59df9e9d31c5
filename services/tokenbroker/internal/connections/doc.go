// Package connections lets operators, and the authorization server for a person
// who is logged in, see and end connections (broker.v1.ConnectionService), over
// gRPC and as REST.
//
//	REST :9091 ──mutual TLS──▶ Handler: names of the client certificate ──▶ in-process
//	gRPC connection ──▶ the server's allow-list, validation, deadlines ──▶ Service
//
// A REST call is a gRPC call in the name of whoever made it, so both ways have
// one set of checks, and audit records name the caller. The OpenAPI document is
// served at /openapi.json, behind the same certificate check.
//
// An error reads the same both ways: a google.rpc.Status with a reason. A request
// with a part that would be ignored (a query parameter or a field that does not
// exist) is refused, since a filter without effect shows too much.
//
// No answer holds a token. Page tokens are positions, not secrets.
//
// What it leaves out: which person the authorization server may ask about (it
// names the one who is logged in).
package connections
