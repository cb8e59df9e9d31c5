// Package load is an MCP client and a person that do not rest while the services
// behind them are replaced: it counts what fails.
//
//	Walk ── one login, three tool calls, each step printed
//	Run  ── callers: one tool call after the other, sessions opened anew in between
//	     ├─ people:  a whole login, one call, one refresh, again and again
//	     └─ a line of Stats each second
//
// A request is sent once. What the client's HTTP library sends again by itself, as
// every client's does, is not counted; everything else that is not the right answer
// is a failure, or, where the answer was prompt and said to come again, counted as unavailable.
//
// What it leaves out: benchmarks. It works at a steady, modest rate.
package load
