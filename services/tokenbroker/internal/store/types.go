package store

import (
	"time"

	"chatelaine.dev/services/tokenbroker/internal/seal"
)

// SessionState is the state of a session. Sessions only move forward.
type SessionState string

// The states.
const (
	SessionPending SessionState = "pending"
	SessionActive  SessionState = "active"
	SessionEnded   SessionState = "ended"
)

// EndExpired is the end reason of a session whose time was over: the name that
// broker.v1.SessionEndReason has for it, as of all reasons.
const EndExpired = "EXPIRED"

// ConnectionStatus is the state of a connection.
type ConnectionStatus string

// The states.
const (
	ConnectionActive         ConnectionStatus = "active"
	ConnectionReauthenticate ConnectionStatus = "reauthentication_required"
	ConnectionDisconnected   ConnectionStatus = "disconnected"
)

// User is a person, known by the primary provider.
type User struct {
	ID, Realm, Subject, Name string
	CreatedAt                time.Time
	LastLoginAt              time.Time // zero before the first completed login
}

// Session is one login of a client.
type Session struct {
	ID         string
	State      SessionState
	ClientID   string
	ClientName string
	// UserID is empty until the primary leg has run.
	UserID     string
	CreatedAt  time.Time
	LastUsedAt time.Time // zero when never used
	// ExpiresAt is when it ends unless it is activated or touched.
	ExpiresAt time.Time
	// EndsAt is its absolute end; zero before activation.
	EndsAt time.Time
	// Expired says that ExpiresAt has passed by the database's clock.
	Expired bool
	// Locked says that the user's primary provider has ended its grant.
	Locked bool
	// Links by provider; providers of which it has nothing are not there.
	Links []Link
}

// Over reports whether the session can no longer be used.
func (s *Session) Over() bool { return s.State == SessionEnded || s.Expired }

// Link is what a session has of one provider.
type Link struct {
	Provider string
	// ConnectionID is set when the provider is linked in an active session.
	ConnectionID string
	// Staged says that tokens wait for the activation.
	Staged bool
	// Skipped says that the session goes without the provider.
	Skipped bool
}

// ActiveSession is a session that may be used now.
type ActiveSession struct {
	ID       string
	UserID   string
	ClientID string
	// ExpiresAt is when the session ends unless it is touched, by this process's clock.
	ExpiresAt time.Time
	// Locked says that the user's primary provider ended its grant: nothing of
	// the session may be used before the next login.
	Locked bool
	// Position of the newest event that this answer has taken into account.
	Position int64
}

// Account is a person's account at a provider.
type Account struct {
	// Realm is the OIDC issuer or the OAuth 2.0 token endpoint.
	Realm string
	// Subject is empty for a provider without any source of identity.
	Subject string
	// Name to show; may be empty.
	Name string
}

// Grant is what is kept of a provider's answer beside the account.
type Grant struct {
	Scopes []string
	// Refreshable says that there is a refresh token among the sealed tokens.
	Refreshable bool
	// ExpiresAt of the access token, by the database's clock as RefreshAfter; zero
	// when the provider did not say. What is written takes both from Validity.
	ExpiresAt time.Time
	// RefreshAfter is when to renew ahead of expiry; zero when ExpiresAt is.
	RefreshAfter time.Time
	// Sealed are the tokens.
	Sealed seal.Sealed
}

// Validity says until when a token is good that was granted just now, by this
// process's clock. It is stored as what is left of it, from which the database
// counts on: the two clocks may differ by more than a token lives.
type Validity struct {
	// EndsAt is when the access token expires; zero when the provider did not say.
	EndsAt time.Time
	// RenewAt is when to renew ahead of that; zero when EndsAt is.
	RenewAt time.Time
}

// left returns the seconds until both, nil for none.
func (v Validity) left() (ends, renew *float64) {
	return secondsUntil(v.EndsAt), secondsUntil(v.RenewAt)
}

func secondsUntil(at time.Time) *float64 {
	if at.IsZero() {
		return nil
	}
	left := seconds(time.Until(at))
	return &left
}

// StagedLeg is a leg whose tokens wait for the session's activation.
type StagedLeg struct {
	ID        string
	SessionID string
	Provider  string
	Account
	Grant
}

// sealedColumn is where every table has its sealed tokens.
const sealedColumn = "sealed_tokens"

// Place is where the leg's tokens are sealed for.
func (l *StagedLeg) Place() seal.Place { return StagedPlace(l.ID) }

// StagedPlace is the place of a staged leg's tokens.
func StagedPlace(id string) seal.Place {
	return seal.Place{Table: "staged_legs", Row: id, Column: sealedColumn, Version: 1}
}

// Connection is a user's account at one provider, with its tokens.
type Connection struct {
	ID       string
	UserID   string
	Provider string
	Account
	Grant
	Status ConnectionStatus
	// Version of the tokens.
	Version    int64
	CreatedAt  time.Time
	UpdatedAt  time.Time
	LastUsedAt time.Time // zero when never used; to the minute
	// Clock holds what the database's clock says of it.
	Clock ConnectionClock
}

// ConnectionClock holds facts that depend on the time, by the database's clock
// at the moment of reading.
type ConnectionClock struct {
	// Expired says that the access token has.
	Expired bool
	// Due says that it is time to renew ahead of expiry.
	Due bool
	// Remaining is how long the access token lives on; zero without an expiry.
	Remaining time.Duration
	// EndsAt is when that is over by this process's clock; Open alone sets it. Zero
	// without an expiry.
	EndsAt time.Time
	// LeaseRemaining is how long somebody's lease lasts; zero without one.
	LeaseRemaining time.Duration
	// RetryIn is how long back-off lasts; zero without any.
	RetryIn time.Duration
	// InDoubt says that an attempt left a mark and no result, and its lease has ended.
	InDoubt bool
	// DoubtfulAttempts were made after one in doubt, on this version.
	DoubtfulAttempts int
	// ForcedAgo is how long ago the latest forced renewal began; negative when never.
	ForcedAgo time.Duration
	// UsedLately says that LastUsedAt is less than a minute old.
	UsedLately bool
}

// Place is where the connection's tokens are sealed for.
func (c *Connection) Place() seal.Place { return ConnectionPlace(c.ID, c.Version) }

// ConnectionPlace is the place of one version of a connection's tokens.
func ConnectionPlace(id string, version int64) seal.Place {
	return seal.Place{Table: "connections", Row: id, Column: sealedColumn, Version: version}
}

// Event is something that a cache of credentials must hear of. One of its ids is set.
type Event struct {
	Position int64
	// SessionID of a session that ended.
	SessionID string
	// ChangedSessionID of a session that goes on, but whose credentials are void:
	// its user was locked or unlocked, or it uses another connection.
	ChangedSessionID string
	// ConnectionID of a connection whose tokens changed or went away.
	ConnectionID string
}
