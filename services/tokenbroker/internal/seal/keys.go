package seal

import (
	"context"
	"fmt"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
)

const (
	// KeySize is the length of a built-in key-encryption key in bytes.
	KeySize = keyring.KeySize
	// maxKeys bounds the number of active keys.
	maxKeys = keyring.MaxKeys
	// maxKeyID bounds the length of a key's id in bytes.
	maxKeyID = 256
)

// AEAD encrypts data keys. Its methods are those of Tink's AEADWithContext, so that
// the clients of Tink's integrations (AWS KMS, Google Cloud KMS, Vault Transit) fit
// as they are. It is safe for concurrent use.
type AEAD interface {
	EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error)
	// DecryptWithContext fails with a *fault.Error of kind Unauthenticated where it
	// knows that the ciphertext is not its own. Any other error is taken for a key
	// that cannot be asked at the moment.
	DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error)
}

// Key is a key-encryption key.
type Key struct {
	// ID is stored with every value that the key protects: it must name this key for
	// ever, over all replicas. At most 256 bytes.
	ID string
	AEAD
}

// FileKey returns the built-in kind of key, which is held in memory: KeySize bytes.
// Its id is derived from its SHA-256. Errors are Invalid.
func FileKey(key secret.Bytes) (Key, error) {
	ring, err := keyring.New(key)
	if err != nil {
		return Key{}, err
	}
	return Key{ID: ring.Newest().String(), AEAD: fileKey{ring}}, nil
}

type fileKey struct{ ring *keyring.Ring }

func (k fileKey) EncryptWithContext(_ context.Context, plaintext, associatedData []byte) ([]byte, error) {
	return k.ring.Seal(nil, plaintext, associatedData)
}

func (k fileKey) DecryptWithContext(_ context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	return k.ring.Open(ciphertext, associatedData)
}

// Keys are the key-encryption keys that a process has: the newest wraps data keys,
// any unwraps. They are safe for concurrent use.
type Keys struct {
	newest string
	byID   map[string]AEAD
}

// NewKeys returns 1 to 16 different keys of any kind, newest first. Errors are
// Invalid.
func NewKeys(keys ...Key) (*Keys, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fault.Newf(fault.Invalid, "1 to %d key-encryption keys are needed, got %d", maxKeys, len(keys))
	}
	k := &Keys{newest: keys[0].ID, byID: make(map[string]AEAD, len(keys))}
	for i, key := range keys {
		if key.ID == "" || len(key.ID) > maxKeyID {
			return nil, fault.Newf(fault.Invalid, "the id of key %d must have 1 to %d bytes", i+1, maxKeyID)
		}
		if _, dup := k.byID[key.ID]; dup {
			return nil, fault.Newf(fault.Invalid, "key %d (id %s) is given twice", i+1, key.ID)
		}
		k.byID[key.ID] = key.AEAD
	}
	return k, nil
}

// NewFileKeys returns 1 to 16 different built-in keys, newest first. Errors are
// Invalid.
func NewFileKeys(secrets ...secret.Bytes) (*Keys, error) {
	keys := make([]Key, len(secrets))
	for i, s := range secrets {
		var err error
		if keys[i], err = FileKey(s); err != nil {
			return nil, fault.From(err).WithPrefix(fmt.Sprintf("key %d", i+1))
		}
	}
	return NewKeys(keys...)
}

// Newest returns the id of the key that wraps.
func (k *Keys) Newest() string { return k.newest }

// Has reports whether the key of this id is among them.
func (k *Keys) Has(id string) bool { return k.byID[id] != nil }

// wrap wraps a data key with the newest key.
func (k *Keys) wrap(ctx context.Context, dataKey, associated []byte) (keyID string, wrapped []byte, err error) {
	wrapped, err = k.byID[k.newest].EncryptWithContext(ctx, dataKey, associated)
	if err != nil {
		return "", nil, fault.Wrap(fault.Unavailable, err, "the key-encryption key "+k.newest+" cannot be asked")
	}
	return k.newest, wrapped, nil
}

// unwrap opens a wrapped data key. An id that is not among the keys is an error
// with ReasonKeyUnknown; anything that does not open, one with ReasonInvalid; a key
// that cannot be asked is Unavailable.
func (k *Keys) unwrap(ctx context.Context, keyID string, wrapped, associated []byte) ([]byte, error) {
	key := k.byID[keyID]
	if key == nil {
		return nil, fault.Newf(fault.Precondition, "the key-encryption key %q is not among those configured", keyID).
			WithReason(ReasonKeyUnknown, "key_id", keyID)
	}
	dataKey, err := key.DecryptWithContext(ctx, wrapped, associated)
	switch {
	case err == nil:
		return dataKey, nil
	case fault.KindOf(err) == fault.Unauthenticated:
		return nil, invalid(err)
	}
	return nil, fault.Wrap(fault.Unavailable, err, "the key-encryption key "+keyID+" cannot be asked")
}
