// Package metrics is what the authorization server counts: logins, legs, tokens,
// registrations, and what waits in its database.
//
// [New] makes a [Recorder], which the parts of the server tell what has happened;
// a nil one records nothing. Names, labels and units are in docs/observability.md.
// Every label has a small set of values: names of the configuration, OAuth error
// codes and words of our own, never what a stranger sends.
//
// What it leaves out: requests, which package telemetry measures, and calls of the
// broker, which gRPC's own instrumentation does.
package metrics
