// Package web has what the HTTP handlers of the authorization server share:
// security headers, CORS for the endpoints that browsers' scripts may call, JSON
// answers, a rate limit by address, and the reference that ties an error page to
// the logs.
//
// What it leaves out: tracing, metrics and access logs, which are the middleware of
// the shared package telemetry.
package web
