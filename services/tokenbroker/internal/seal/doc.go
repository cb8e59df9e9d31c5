// Package seal keeps tokens unreadable at rest: envelope encryption.
//
// [Sealer.Seal] makes a fresh data key for each value, encrypts the value with
// it, and has the data key wrapped by a [KeyWrapper], which holds the
// key-encryption keys. What is stored is the key's id, the wrapped data key and
// the ciphertext ([Sealed]):
//
//	value ──XChaCha20-Poly1305, fresh data key──▶ Ciphertext
//	data key ──KeyWrapper, newest key-encryption key──▶ WrappedKey, KeyID
//
// Both layers authenticate the [Place] of the value: table, row, column and, for
// the ciphertext, the row's version. A ciphertext that was copied to another
// place, or back over a newer one, does not open. The wrapped key is bound to the
// place without its version, so that rotation can wrap it anew without reading
// the value.
//
// [NewKeys] is the built-in KeyWrapper: keys from secret references, newest
// first; the newest wraps, any unwraps. A key's id is derived from its SHA-256, so
// that an id in a row names exactly one key. A key management service fits behind
// the same interface.
//
// To rotate: add the new key last on all replicas, move it first, have the rows
// wrapped anew, drop the old key. The start-up check (package app) says which
// key is missing when one is dropped too early.
//
// What it leaves out: what the value means ([Tokens] is the one shape that the
// broker seals), and wiping memory, which Go does not allow to promise.
package seal
