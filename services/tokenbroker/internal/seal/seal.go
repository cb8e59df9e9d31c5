package seal

import (
	"context"
	"crypto/rand"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"chatelaine.dev/internal/fault"
)

const (
	// MaxPlaintext bounds a sealed value, in bytes.
	MaxPlaintext = 256 << 10

	formatVersion = 1
	nonceSize     = chacha20poly1305.NonceSizeX
	overhead      = 1 + nonceSize + chacha20poly1305.Overhead
)

// Reasons of this package's errors.
const (
	// ReasonKeyUnknown (kind Precondition): the key-encryption key is not among
	// those configured; metadata["key_id"] names it.
	ReasonKeyUnknown = "seal_key_unknown"
	// ReasonInvalid (kind Internal): the value was changed, moved, or sealed by
	// somebody else.
	ReasonInvalid = "seal_invalid"
)

// Place is where a sealed value lives. It never opens anywhere else.
type Place struct {
	// Table, Row and Column identify the value.
	Table, Row, Column string
	// Version of the row that the value was sealed for.
	Version int64
}

// Sealed is a value at rest. The zero value is no value.
type Sealed struct {
	// KeyID names the key-encryption key.
	KeyID string
	// WrappedKey is the data key, wrapped.
	WrappedKey []byte
	// Ciphertext is format version (1 byte) | nonce (24) | ciphertext and tag.
	Ciphertext []byte
}

// IsZero reports whether there is no value.
func (s Sealed) IsZero() bool { return s.KeyID == "" && s.WrappedKey == nil && s.Ciphertext == nil }

// Sealer seals and opens values. It is safe for concurrent use.
type Sealer struct{ keys *Keys }

// NewSealer returns a sealer whose data keys are wrapped by keys.
func NewSealer(keys *Keys) *Sealer { return &Sealer{keys: keys} }

// Seal encrypts plaintext for a place.
func (s *Sealer) Seal(ctx context.Context, plaintext []byte, at Place) (Sealed, error) {
	if len(plaintext) == 0 || len(plaintext) > MaxPlaintext {
		return Sealed{}, fault.Newf(fault.Internal, "a sealed value has 1 to %d bytes", MaxPlaintext)
	}
	dataKey := make([]byte, chacha20poly1305.KeySize)
	rand.Read(dataKey) // never fails: crypto/rand ends the process instead
	defer clear(dataKey)
	aead, err := chacha20poly1305.NewX(dataKey)
	if err != nil {
		return Sealed{}, fault.Wrap(fault.Internal, err, "")
	}
	keyID, wrapped, err := s.keys.wrap(ctx, dataKey, at.keyAssociated())
	if err != nil {
		return Sealed{}, err
	}
	ciphertext := make([]byte, 1+nonceSize, len(plaintext)+overhead)
	ciphertext[0] = formatVersion
	rand.Read(ciphertext[1:])
	ciphertext = aead.Seal(ciphertext, ciphertext[1:], plaintext, at.valueAssociated())
	return Sealed{KeyID: keyID, WrappedKey: wrapped, Ciphertext: ciphertext}, nil
}

// Open decrypts a value that was sealed for the place.
func (s *Sealer) Open(ctx context.Context, sealed Sealed, at Place) ([]byte, error) {
	if len(sealed.Ciphertext) <= overhead || len(sealed.Ciphertext) > MaxPlaintext+overhead ||
		sealed.Ciphertext[0] != formatVersion {
		return nil, invalid(nil)
	}
	dataKey, err := s.keys.unwrap(ctx, sealed.KeyID, sealed.WrappedKey, at.keyAssociated())
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	aead, err := chacha20poly1305.NewX(dataKey)
	if err != nil {
		return nil, invalid(err)
	}
	nonce, body := sealed.Ciphertext[1:1+nonceSize], sealed.Ciphertext[1+nonceSize:]
	plaintext, err := aead.Open(nil, nonce, body, at.valueAssociated())
	if err != nil {
		return nil, invalid(err)
	}
	return plaintext, nil
}

// CheckKey reports whether the data key of a stored value can be unwrapped,
// without opening the value.
func (s *Sealer) CheckKey(ctx context.Context, sealed Sealed, at Place) error {
	dataKey, err := s.keys.unwrap(ctx, sealed.KeyID, sealed.WrappedKey, at.keyAssociated())
	clear(dataKey)
	return err
}

// Rewrap wraps the data key of a stored value with the newest key. Only KeyID and
// WrappedKey differ in the result; the value is not opened.
func (s *Sealer) Rewrap(ctx context.Context, sealed Sealed, at Place) (Sealed, error) {
	dataKey, err := s.keys.unwrap(ctx, sealed.KeyID, sealed.WrappedKey, at.keyAssociated())
	if err != nil {
		return Sealed{}, err
	}
	defer clear(dataKey)
	sealed.KeyID, sealed.WrappedKey, err = s.keys.wrap(ctx, dataKey, at.keyAssociated())
	return sealed, err
}

// Keys returns the keys that wrap.
func (s *Sealer) Keys() *Keys { return s.keys }

func invalid(cause error) error {
	return fault.Wrap(fault.Internal, cause, "a sealed value does not open").WithReason(ReasonInvalid)
}

// keyAssociated and valueAssociated are unambiguous because each part carries
// its length; the first byte keeps the two layers apart.
func (p Place) keyAssociated() []byte { return p.associated('k') }

func (p Place) valueAssociated() []byte {
	return binary.BigEndian.AppendUint64(p.associated('v'), uint64(p.Version)) //nolint:gosec // a bijection
}

func (p Place) associated(layer byte) []byte {
	b := make([]byte, 0, 2+len(p.Table)+len(p.Row)+len(p.Column)+3*4+8)
	b = append(b, formatVersion, layer)
	for _, part := range []string{p.Table, p.Row, p.Column} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // names are short
		b = append(b, part...)
	}
	return b
}
