package sessionid

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/services/gateway/internal/caller"
)

// MaxLength is the longest session id that is made or opened, in characters.
const MaxLength = 2048

// ReasonUnknown marks the error of an id that does not open.
const ReasonUnknown = "session_unknown"

// ReasonTooLarge marks the error of a session that does not fit into MaxLength.
const ReasonTooLarge = "session_too_large"

const (
	formatVersion   = 1
	keySize         = 16
	maxBackends     = 255
	purposeSession  = "mcp-session-id"
	maxStringLength = 1<<16 - 1
)

// Session is what a session id carries.
type Session struct {
	// Key names the session itself: 16 random bytes, the same for as long as
	// the session lives, also when its id is sealed anew.
	Key [keySize]byte
	// CreatedAt has the precision of a second.
	CreatedAt time.Time
	// ProtocolVersion is the one that was negotiated; may be empty.
	ProtocolVersion string
	// Backends holds the backends' own session ids, in the order of joining.
	Backends []BackendSession
	// Extra is for the endpoint's own use; may be empty.
	Extra []byte
}

// BackendSession is one backend's session.
type BackendSession struct {
	// Backend is the backend's name.
	Backend string
	// ID is the backend's Mcp-Session-Id; empty when it gave none.
	ID string
}

// New returns a session with a fresh key.
func New(protocolVersion string, backends ...BackendSession) *Session {
	s := &Session{CreatedAt: time.Now(), ProtocolVersion: protocolVersion, Backends: backends}
	rand.Read(s.Key[:]) // never fails: crypto/rand ends the process instead
	return s
}

// KeyText returns the key in hexadecimal, for keys of stores and for logs.
func (s *Session) KeyText() string { return hex.EncodeToString(s.Key[:]) }

// OriginOf returns a short name of a backend's origin. A session id is the
// backend's secret, and so must not reach what a changed configuration has at
// another origin under the same name.
func OriginOf(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// Backend returns the session id of a backend, and whether it is in the session.
func (s *Session) Backend(name string) (string, bool) {
	for i := range s.Backends {
		if s.Backends[i].Backend == name {
			return s.Backends[i].ID, true
		}
	}
	return "", false
}

// Sealer seals and opens. It is safe for concurrent use.
type Sealer struct {
	ring *keyring.Ring
}

// NewSealer returns a sealer with the keys of ring.
func NewSealer(ring *keyring.Ring) *Sealer { return &Sealer{ring: ring} }

// Seal returns the id of session for this caller at this endpoint (the path,
// for example "/mcp/repos"). The error of a session that does not fit is
// Precondition with reason ReasonTooLarge.
func (s *Sealer) Seal(c *caller.Caller, endpoint string, session *Session) (string, error) {
	plain, err := session.marshal()
	if err != nil {
		return "", err
	}
	return s.SealValue(purposeSession, c, endpoint, plain)
}

// Open returns the session of an id. Its only error is NotFound with reason
// ReasonUnknown.
func (s *Sealer) Open(c *caller.Caller, endpoint, id string) (*Session, error) {
	plain, err := s.OpenValue(purposeSession, c, endpoint, id)
	if err != nil {
		return nil, err
	}
	session, ok := unmarshal(plain)
	if !ok {
		return nil, unknown(nil)
	}
	return session, nil
}

// SealValue seals plain for a purpose, a caller and an endpoint, as URL-safe
// base64 text of at most MaxLength characters. A value sealed for one purpose
// never opens for another.
func (s *Sealer) SealValue(purpose string, c *caller.Caller, endpoint string, plain []byte) (string, error) {
	if base64.RawURLEncoding.EncodedLen(len(plain)+keyring.Overhead) > MaxLength {
		return "", fault.Newf(fault.Precondition, "the session does not fit into %d characters", MaxLength).
			WithReason(ReasonTooLarge)
	}
	sealed, err := s.ring.Seal(nil, plain, associated(purpose, c, endpoint))
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// OpenValue is the inverse of SealValue. Its only error is NotFound with reason
// ReasonUnknown.
func (s *Sealer) OpenValue(purpose string, c *caller.Caller, endpoint, text string) ([]byte, error) {
	// One value has one spelling: the decoder would skip line breaks.
	if len(text) > MaxLength || strings.ContainsAny(text, "\r\n") {
		return nil, unknown(nil)
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, unknown(nil)
	}
	plain, err := s.ring.Open(sealed, associated(purpose, c, endpoint))
	if err != nil {
		return nil, unknown(err)
	}
	return plain, nil
}

func unknown(cause error) error {
	return fault.Wrap(fault.NotFound, cause, "session not found").WithReason(ReasonUnknown)
}

// associated is unambiguous because each part has its length in front.
func associated(purpose string, c *caller.Caller, endpoint string) []byte {
	b := make([]byte, 0, len(purpose)+len(c.Key)+len(endpoint)+12)
	for _, part := range [...]string{purpose, c.Key, endpoint} {
		b = strconv.AppendInt(b, int64(len(part)), 10)
		b = append(b, ':')
		b = append(b, part...)
	}
	return b
}

// The plaintext: version, key, creation time in seconds, then strings with
// their length (uvarint) in front.
func (s *Session) marshal() ([]byte, error) {
	if len(s.Backends) > maxBackends {
		return nil, fault.Newf(fault.Precondition, "a session has at most %d backends", maxBackends).
			WithReason(ReasonTooLarge)
	}
	b := make([]byte, 0, 128)
	b = append(b, formatVersion)
	b = append(b, s.Key[:]...)
	b = binary.AppendVarint(b, s.CreatedAt.Unix())
	b = appendText(b, s.ProtocolVersion)
	b = append(b, byte(len(s.Backends)))
	for i := range s.Backends {
		b = appendText(b, s.Backends[i].Backend)
		b = appendText(b, s.Backends[i].ID)
	}
	return appendText(b, string(s.Extra)), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func unmarshal(b []byte) (*Session, bool) {
	if len(b) < 1+keySize || b[0] != formatVersion {
		return nil, false
	}
	s := &Session{}
	copy(s.Key[:], b[1:])
	r := reader{rest: b[1+keySize:]}
	s.CreatedAt = time.Unix(r.varint(), 0)
	s.ProtocolVersion = r.text()
	for range r.byte() {
		s.Backends = append(s.Backends, BackendSession{Backend: r.text(), ID: r.text()})
	}
	if extra := r.text(); extra != "" {
		s.Extra = []byte(extra)
	}
	return s, !r.bad && len(r.rest) == 0
}

// reader reads what marshal wrote; after the first problem it gives zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) fail() { r.bad, r.rest = true, nil }

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) text() string {
	length, n := binary.Uvarint(r.rest)
	if n <= 0 || length > maxStringLength || length > uint64(len(r.rest)-n) {
		r.fail()
		return ""
	}
	s := string(r.rest[n : n+int(length)])
	r.rest = r.rest[n+int(length):]
	return s
}
