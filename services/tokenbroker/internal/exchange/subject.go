package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"chatelaine.dev/internal/secret"
)

// Subject is whose token is exchanged.
type Subject struct {
	// Key says whose token it is; make it with one of the Key functions.
	Key string
	// Version of the subject's tokens; 0 where they have none.
	Version int64
	// Position of the events that were taken into account when they were read.
	Position int64
	// NotAfter bounds what is made of the subject; zero means no bound.
	NotAfter time.Time
	// Token returns the subject token. It is called on a cache miss only.
	Token func(context.Context) (secret.String, error)
	// Actor returns a token of who acts for the subject (RFC 8693, section 2.1), for
	// grants that send one; Key must then be of [ActedBy]. Nil where there is none.
	Actor func(context.Context) (secret.String, error)
	// Renew returns the subject with a newer token, because the token service did
	// not accept this one; ok is false when there is none. Nil: it cannot be renewed.
	// An error that is the caller's alone, and not one of the subject, is [OfCaller].
	Renew func(context.Context) (renewed Subject, ok bool, err error)
}

// OfCaller marks an error of Subject.Renew that is about the one who called, such as
// the end of their session: others with the same subject are not told of it.
func OfCaller(err error) error { return &callerError{err} }

type callerError struct{ error }

func (e *callerError) Unwrap() error { return e.error }

// ConnectionKey is the key of a connection's tokens.
func ConnectionKey(connectionID string) string { return "connection/" + connectionID }

// SessionKey is the key of subject tokens that are minted for a session.
func SessionKey(sessionID string) string { return "session/" + sessionID }

// actorMark separates a subject's key from who acts; no key has it.
const actorMark = "\x00"

// ActedBy is a subject's key for what is made for one client: a token that says who
// acts is of no use to another one. The subject is forgotten with all of them.
func ActedBy(key, clientID string) string { return key + actorMark + clientID }

// CallerKey is the key of a caller's own token. Two tokens of one person may
// differ in what they allow, so the key is the token's, by its SHA-256.
func CallerKey(token secret.String) string {
	sum := sha256.Sum256([]byte(token.Reveal()))
	return "caller/" + hex.EncodeToString(sum[:])
}

// Token is an exchanged token.
type Token struct {
	AccessToken secret.String
	// ExpiresAt is when it must no longer be used: a margin before its end.
	ExpiresAt time.Time
	// AheadAt is when it is replaced in the background if somebody asks; zero: never.
	AheadAt time.Time
	// Bounded says that the subject's end comes before the token's own.
	Bounded bool
	// Version of the subject that it was made of.
	Version int64
	// Generation tells this token from others of the same subject and version.
	Generation Generation
}

// AskAgainAt is when a holder should ask for the token again: once before its end, so
// that the next one is made in time.
func (t *Token) AskAgainAt(now time.Time) time.Time {
	if now.Before(t.AheadAt) {
		return t.AheadAt
	}
	return t.ExpiresAt
}

// Generation identifies an exchanged token without revealing it.
type Generation struct {
	// Rejections is how many tokens of this subject and version backends had
	// rejected when it was made.
	Rejections int
	// ID is random.
	ID string
}

// Rejection is what came of a backend's rejection of a token.
type Rejection int

// The outcomes.
const (
	// Stale: another token than the rejected one is or will be served.
	Stale Rejection = iota
	// Dropped: the token is gone; the next call gets another one.
	Dropped
	// Spent: another token was made of this subject lately, and rejected too.
	Spent
)
