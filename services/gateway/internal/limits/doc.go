// Package limits bounds what one caller, and all callers together, can make the
// gateway hold.
//
//	request ─▶ Requests: how many one person has running ── 429
//	        ─▶ Memory: bytes of bodies, answers and events ─ 503, GATEWAY_BUSY
//	        ─▶ Rate: how often one person opens a session ── 429
//
// Messages are looked at as a whole before they pass, so they are held in memory.
// Small ones are free, which the bound on requests makes good for; what a message
// takes beyond that is taken from one budget for the process, of which nobody gets
// more than half. The budget follows the process's memory limit.
//
// What it leaves out: streams that clients open (package streams), and callers
// without an identity, whom only the budget as a whole bounds.
package limits
