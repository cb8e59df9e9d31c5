// Package inventory tells operators, as gauges, what the broker stores and what
// waits to be done.
//
//	once a minute: store ──counts──▶ Inventory ──at each scrape──▶ gauges
//	the revocation queue ───────────────────────at each scrape──▶ gauge
//
// Counts come from the database, so every replica reports the same ones. They are
// taken by a task of their own with a bound on time, and never by a scrape, so that
// no number of scrapes costs the database more. Counts that could not be taken are
// absent instead of old.
//
// What it leaves out: what happens, which packages audit, refresh and endpoint count
// as it does.
package inventory
