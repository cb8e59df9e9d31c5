package store

import "time"

// ActiveSession is a session that may be used now.
type ActiveSession struct {
	ID       string
	UserID   string
	ClientID string
	// ExpiresAt is when the session ends unless it is touched.
	ExpiresAt time.Time
	// Locked says that the user's primary provider ended its grant: nothing of
	// the session may be used before the next login.
	Locked bool
	// Position of the newest event that this answer has taken into account.
	Position int64
}
