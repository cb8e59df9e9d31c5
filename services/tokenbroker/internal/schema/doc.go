// Package schema holds the numbered migrations of the broker's Postgres schema,
// tokenbroker.
//
//	migrations/NNNNN_name.sql ──▶ embedded ──▶ `tokenbroker migrate` (under a lock)
//	                                      └──▶ readiness: is the database's version this one?
//
// A migration that has left the house is never edited: what changes comes as the
// next number. While replicas are replaced one after another, brokers of the
// version before run on the new schema; a migration therefore adds, and leaves what
// they read and write as they know it.
//
// What it leaves out: applying and checking (package postgres), and every query
// (package store).
package schema
