// Package reload notices that the set of resources changed while a service runs.
//
//	path ──▶ config.Load ──▶ another digest? ──▶ Apply ──▶ in use
//	          every few seconds                    └ error ──▶ the last set stays; one log line, and a metric
//
// A set is taken as a whole or not at all. What is wrong with it, and warnings of one
// that is taken, are said once in the log, a line each, and for as long as it lasts in the metric
// chatelaine.config.current (1: what the files say is in use, 0: it is not), and it
// is tried again at each look.
//
// What it leaves out: how a service swaps, and secrets that change under an
// unchanged set.
package reload
