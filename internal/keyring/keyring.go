package keyring

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

const (
	// KeySize is the length of a key in bytes.
	KeySize = chacha20poly1305.KeySize
	// Overhead is how many bytes Seal adds to a plaintext.
	Overhead = headerSize + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
	// MaxPlaintext bounds what Seal takes, in bytes.
	MaxPlaintext = 1 << 20
	// MaxKeys bounds the number of active keys.
	MaxKeys = 16

	version    = 1
	idSize     = 8
	headerSize = 1 + idSize
	// idContext keeps ids apart from any other hash of the same key.
	idContext = "chatelaine.dev/keyring/v1 key id\x00"
)

// ID names a key without telling anything of it.
type ID [idSize]byte

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IDOf returns the id of a key.
func IDOf(key secret.Bytes) ID {
	h := sha256.New()
	h.Write([]byte(idContext))
	h.Write(key.Reveal())
	return ID(h.Sum(nil)[:idSize])
}

// Ring seals with its newest key and opens with any. It is safe for concurrent use.
//
// To rotate over several replicas: add the new key last everywhere, then move
// it first everywhere, then remove the old one when its values are dead.
type Ring struct {
	newest ID
	keys   map[ID]cipher.AEAD
}

// New makes a ring of 1 to MaxKeys different keys of KeySize bytes, newest
// first. Errors are Invalid.
func New(keys ...secret.Bytes) (*Ring, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return nil, fault.Newf(fault.Invalid, "a key ring has 1 to %d keys, got %d", MaxKeys, len(keys))
	}
	r := &Ring{newest: IDOf(keys[0]), keys: make(map[ID]cipher.AEAD, len(keys))}
	for i, key := range keys {
		if key.Len() != KeySize {
			return nil, fault.Newf(fault.Invalid, "key %d has %d bytes, want %d", i+1, key.Len(), KeySize)
		}
		id := IDOf(key)
		if _, dup := r.keys[id]; dup {
			return nil, fault.Newf(fault.Invalid, "key %d (id %s) is in the ring twice", i+1, id)
		}
		aead, err := chacha20poly1305.NewX(key.Reveal())
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, fmt.Sprintf("key %d cannot be used", i+1))
		}
		r.keys[id] = aead
	}
	return r, nil
}

// Newest returns the id of the key that seals.
func (r *Ring) Newest() ID { return r.newest }

// Seal appends the sealed plaintext to dst, which may be nil. The associated
// data must not be empty. Errors are Invalid and mean a defect of the caller.
func (r *Ring) Seal(dst, plaintext, associated []byte) ([]byte, error) {
	switch {
	case len(associated) == 0:
		return nil, fault.New(fault.Invalid, "associated data is required")
	case len(plaintext) > MaxPlaintext:
		return nil, fault.Newf(fault.Invalid, "plaintext is larger than %d bytes", MaxPlaintext)
	}
	start := len(dst)
	out := make([]byte, start+headerSize+chacha20poly1305.NonceSizeX, start+len(plaintext)+Overhead)
	copy(out, dst)
	header := out[start : start+headerSize]
	header[0] = version
	copy(header[1:], r.newest[:])
	nonce := out[start+headerSize:]
	rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return r.keys[r.newest].Seal(out, nonce, plaintext, bind(header, associated)), nil
}

// Open returns the plaintext. Every failure that a forger can cause is the same
// error, Unauthenticated with reason "seal_invalid"; a key that the ring does
// not have is Unauthenticated with reason "seal_key_unknown".
func (r *Ring) Open(sealed, associated []byte) ([]byte, error) {
	if len(associated) == 0 {
		return nil, fault.New(fault.Invalid, "associated data is required")
	}
	if len(sealed) < Overhead || len(sealed) > MaxPlaintext+Overhead || sealed[0] != version {
		return nil, invalid()
	}
	header := sealed[:headerSize]
	aead, ok := r.keys[ID(header[1:])]
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "sealed value is not ours, or too old").WithReason("seal_key_unknown")
	}
	nonce := sealed[headerSize : headerSize+chacha20poly1305.NonceSizeX]
	plaintext, err := aead.Open(nil, nonce, sealed[headerSize+chacha20poly1305.NonceSizeX:], bind(header, associated))
	if err != nil {
		return nil, invalid()
	}
	return plaintext, nil
}

func invalid() error {
	return fault.New(fault.Unauthenticated, "sealed value is not ours, or was changed").WithReason("seal_invalid")
}

// bind is unambiguous because the header has a fixed length.
func bind(header, associated []byte) []byte {
	return append(header[:headerSize:headerSize], associated...)
}
