package seal

import (
	"context"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
)

// Keys is the built-in KeyWrapper: key-encryption keys held in memory.
type Keys struct {
	ring *keyring.Ring
	ids  map[string]bool
}

// KeySize is the length of a key-encryption key in bytes.
const KeySize = keyring.KeySize

// NewKeys returns a wrapper with 1 to 16 different keys of KeySize bytes, newest
// first. Errors are Invalid.
func NewKeys(keys ...secret.Bytes) (*Keys, error) {
	ring, err := keyring.New(keys...)
	if err != nil {
		return nil, err
	}
	k := &Keys{ring: ring, ids: make(map[string]bool, len(keys))}
	for _, key := range keys {
		k.ids[keyring.IDOf(key).String()] = true
	}
	return k, nil
}

// Wrap implements KeyWrapper.
func (k *Keys) Wrap(_ context.Context, dataKey, associated []byte) (string, []byte, error) {
	wrapped, err := k.ring.Seal(nil, dataKey, associated)
	if err != nil {
		return "", nil, fault.Wrap(fault.Internal, err, "a data key cannot be wrapped")
	}
	return k.ring.Newest().String(), wrapped, nil
}

// Unwrap implements KeyWrapper.
func (k *Keys) Unwrap(_ context.Context, keyID string, wrapped, associated []byte) ([]byte, error) {
	if !k.ids[keyID] {
		return nil, fault.Newf(fault.Precondition, "the key-encryption key %q is not among those configured", keyID).
			WithReason(ReasonKeyUnknown, "key_id", keyID)
	}
	dataKey, err := k.ring.Open(wrapped, associated)
	if err != nil {
		return nil, invalid(err)
	}
	return dataKey, nil
}
