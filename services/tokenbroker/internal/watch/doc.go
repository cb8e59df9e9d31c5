// Package watch tells gateways what to forget (CredentialService.WatchSessions).
//
//	events table ──▶ Feed (one reader per process) ──▶ bounded queue per watcher ──▶ stream
//
// The feed reads events in order over a connection of its own. NOTIFY only wakes
// it: it looks at least every half second, so a lost notification, or a pooler
// that swallows them, costs that much and no more. It sends a heartbeat each
// second, and only after a successful read: silence is how a watcher learns that
// it no longer hears of ended sessions.
//
// A watch begins with the queue, then the snapshot (or the events since the
// watcher's last position) from the database, then the queue's events that are
// newer: nothing is missed in between and nothing comes twice. A watcher whose
// queue is full is sent away and resumes from the last position that it saw.
//
// Three kinds of events go out: a session ended; a session goes on but what was
// handed out for it is void; a connection's tokens changed. The snapshot has the
// ends alone, since who begins has nothing yet that the others could void.
//
// What it leaves out: retention of events (package sweep), and what a watcher does
// with an event.
package watch
