// Package telemetry is what a service says about itself: logs, traces, metrics
// and health.
//
// [Start] makes a [Telemetry] from a [Config]: a slog logger whose records carry
// trace_id, span_id and request_id from the context; a tracer provider that
// exports over OTLP/gRPC when an endpoint is configured, and without one still
// gives every request a trace id but records nothing; and a meter provider that Prometheus scrapes. Parts of a service
// get these as values. [Telemetry.AdminHandler] serves /healthz, /readyz and /metrics on
// the admin port; [Telemetry.Middleware] wraps the public handlers.
//
// Labels of metrics are bounded: routes are mux patterns, never paths; methods
// outside the known set are "_OTHER". Logs and spans hold no query strings,
// headers or bodies.
//
// [Telemetry.DebugHandler] has profiles and the log level, for operators who ask
// for them with --debug-address.
//
// What it leaves out: sending logs anywhere but to a stream, which the platform
// collects.
package telemetry
