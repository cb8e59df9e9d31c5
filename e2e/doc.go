// Package e2e tests the built programs from outside: three services, two
// identity providers and three MCP servers as processes, a real Postgres, the
// MCP SDKs of Go and TypeScript as clients, and Chromium as the browser.
//
// One stack serves all tests of a run, on free ports; tests share it but not
// their people's logins, so they run in parallel. Between the broker and the
// identity providers, and between the gateway and the MCP servers, stand
// recording proxies, so that a test can ask what was on the wire; what a client and
// its person send is recorded in their own transport. Traces of all processes come
// in at an OTLP receiver of the test's own.
package e2e
