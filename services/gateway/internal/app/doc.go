// Package app puts the gateway together: flags and resources in, a running
// process out.
//
//	resources ─▶ verifier, broker client, credentials ─▶ backends ─▶ /mcp/{backend}, /mcp ─▶ public address
//	                                     └─ watch of sessions             health, metrics ─▶ admin address
//
// Nothing here waits for another service: keys, broker and backends are reached
// when a request needs them.
package app
