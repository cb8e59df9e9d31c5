// Package demo walks the main job once and tells what it sees: one login, leg by leg,
// through two identity providers, then one call to each of three MCP servers, with the
// caller that each server names, the trace and the line of the gateway's log.
//
// Everything that it prints comes from the running programs: names from the
// backends, claims from the token, audit records from the broker.
package demo
