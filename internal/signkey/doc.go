// Package signkey reads private keys that sign JWTs: which forms of PEM are read, and
// by which algorithm each key signs (RFC 7518, section 3.1; RFC 8037).
package signkey
