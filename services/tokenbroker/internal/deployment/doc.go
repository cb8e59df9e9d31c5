// Package deployment holds the configuration that the broker runs with, and swaps
// it while it runs.
//
//	path ──▶ config.Load ──▶ Snapshot (resources, digest, providers) ──▶ Source.Current
//	          every few seconds, by digest                             └▶ Source.Find(digest)
//
// A set with an error is reported and the last good one stays. After a swap the
// previous set can still be found by its digest for ten minutes, so that gateways
// which have not swapped yet are answered as they were configured.
//
// What it leaves out: secrets that change under an unchanged set (they are read
// when a snapshot is made), and what the other services take from the set.
package deployment
