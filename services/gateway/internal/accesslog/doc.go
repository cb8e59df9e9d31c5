// Package accesslog writes one line, and measures, for each MCP request.
//
// [Log.Wrap] puts a [Record] into the request's context; whoever learns
// something of the request writes it there:
//
//	Wrap ─▶ Record{Endpoint} ─▶ handler: From(ctx).Method = "tools/call" … ─▶ log line, metrics
//
// A line has names, an outcome and a time: no body, header, token, or anything
// that says who the person is beyond a hash. Texts that come from the client
// are cut.
//
// What it leaves out: requests that are no MCP, which package telemetry counts.
package accesslog
