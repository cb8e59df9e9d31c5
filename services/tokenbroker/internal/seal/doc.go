// Package seal keeps tokens unreadable at rest: envelope encryption.
//
// [Sealer.Seal] makes a fresh data key for each value, encrypts the value with
// it, and has the data key wrapped by [Keys], the key-encryption keys. What is stored is the key's id, the wrapped data key and
// the ciphertext ([Sealed]):
//
//	value ──XChaCha20-Poly1305, fresh data key──▶ Ciphertext
//	data key ──Keys, newest key-encryption key──▶ WrappedKey, KeyID
//
// Both layers authenticate the [Place] of the value: table, row, column and, for
// the ciphertext, the row's version. A ciphertext that was copied to another
// place, or back over a newer one, does not open. The wrapped key is bound to the
// place without its version, so that rotation can wrap it anew without reading
// the value.
//
// A [Key] is an id and an [AEAD], the interface of Tink's integrations with key
// management services: one that is asked over the network fits as it is, next to
// others, and values move from one kind to the other by rotation. [FileKey] is the
// built-in kind, from secret references. Its id is derived from its SHA-256, so that
// an id in a row names exactly one key.
//
// To rotate: add the new key last on all replicas, move it first, have the rows
// wrapped anew (package rotate), drop the old key. The start-up check (package app)
// says which key is missing when one is dropped too early.
//
// What it leaves out: what the value means ([Tokens] is the one shape that the
// broker seals), and wiping memory, which Go does not allow to promise.
package seal
