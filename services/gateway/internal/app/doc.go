// Package app puts the gateway together: flags and resources in, a running
// process out.
//
//	resources ─▶ verifier, broker client, credentials ─▶ backends ─▶ /mcp/{backend}, /mcp ─▶ public address
//	                                     └─ watch of sessions             health, metrics ─▶ admin address
//
// Nothing here waits for another service: keys, broker and backends are reached
// when a request needs them. Resources that change while it runs are taken into use
// as a whole, once the broker has them; requests that began with the old ones end
// with them (see generations).
package app
