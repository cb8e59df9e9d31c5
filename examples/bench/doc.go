// Package bench compares the gateway with the least that could stand in its
// place, on one machine and in one run.
//
// The same closed loop of tools/call requests goes to four targets: (a) an MCP
// server directly, (b) through a plain httputil.ReverseProxy, (c) through the
// gateway's /mcp/{backend}, with authentication and an injected credential, and
// (d) through the aggregated /mcp. The rounds are interleaved, so that whatever
// else the machine does meets all four, and each round's figures are divided by
// the same round's figures of (b): the medians of these ratios are the result.
// Then the token broker's GetCredential is called as the gateway calls it.
//
//	load (this process) ─┬─────────────────────────▶ backend (Backend, a process)
//	                     ├─▶ proxy (Proxy, a process) ─▶
//	                     └─▶ gateway, broker (a stack) ─▶
//
// Everything is real: package stack runs the services, package journey logs a
// person in, the backend is an MCP server on the Go SDK that refuses calls
// without octohub's token. One wrong answer fails the run.
//
// What it leaves out: other machines. The load generator shares the processors
// with what it measures, so absolute figures say little; docs/benchmarks.md has
// what may be concluded. CPU time comes from /proc, so it needs Linux.
package bench
