// Package deployment holds the resources that the broker runs with, and those
// before them.
//
//	config.Set ──▶ Apply ──▶ Snapshot (digest, deployment, providers) ──▶ Source.Current
//	                 └ error: the last one stays                     └──▶ Source.Find(digest)
//
// After a swap the previous set can still be found by its digest for ten minutes,
// so that gateways which have not swapped yet are answered as they were configured.
//
// What it leaves out: noticing that the files changed (internal/reload), secrets
// that change under an unchanged set (they are read when a snapshot is made), and
// what the other services take from the set.
package deployment
