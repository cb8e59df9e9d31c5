// Package lru is a bounded map that forgets what was not used for longest.
//
// A [Cache] is bounded by the sum of the costs of its entries (bytes, or one
// each) and by the age of an entry. It is split into shards by the hash of the
// key, each with a lock of its own, so that requests of different sessions do
// not wait for each other.
//
// What it leaves out: loading of missing values, and any word to the owner of a
// value that was dropped.
package lru
