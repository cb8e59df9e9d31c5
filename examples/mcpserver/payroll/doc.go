// Package payroll is the demo's MCP server for payslips. It trusts corp: each
// request bears a JWT that corp signed for the audience payroll with the scope
// payroll:read, as a token exchange makes them, and the token says who calls.
//
// The signature is checked with corp's published keys (fetched when an unknown
// key id comes), then issuer, audience, times and scope. Payslips are found by
// the token's subject, so nobody can ask for another person's.
//
// What it leaves out: revocation before expiry. Tokens live minutes.
package payroll
