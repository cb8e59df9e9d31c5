// Package keyring seals small values that leave a process and come back: session
// ids, cookies, cursors.
//
// A [Ring] holds one or more 32-byte keys, newest first. The newest seals, any
// opens, so that a key is replaced by putting the new one in front on every
// replica and dropping the old one when nothing sealed with it is alive.
// Replicas may learn of a new key one after another only if it is first added
// last and then moved first: see Ring.
//
// The format, version 1, is XChaCha20-Poly1305 with a random nonce:
//
//	version (1 byte) | key id (8 bytes) | nonce (24 bytes) | ciphertext and tag
//
// The key id is taken from a SHA-256 over the key. Version and id are
// authenticated together with the caller's associated data, which is required:
// it says what the value is and whom it belongs to, so that one sealed for a
// purpose never opens for another.
//
// What it leaves out: envelope encryption and rotation of stored values (the
// token broker has its own), and any encoding to text.
package keyring
