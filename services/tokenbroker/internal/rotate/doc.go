// Package rotate wraps the data keys of all stored values anew with the newest
// key-encryption key, while brokers run.
//
//	wrapped key ──▶ unwrap with the key of its row ──▶ wrap with the newest ──▶ compare-and-set
//
// Values are not opened. Each wrapped key is replaced only where it is still the one
// that was read: a renewal or a login that was faster wins, and what it sealed has a
// data key of its own. Nobody waits for a rotation, and no version of a connection
// changes, so caches keep what they have. Every batch is committed on its own: a
// rotation that was cut off is run again and goes on with what is left.
//
// What it leaves out: which keys there are (package seal) and the rows (package
// store).
package rotate
