package rpc

import "time"

// SetClock replaces the clock that says when to look at the files again.
func (t *TLS) SetClock(now func() time.Time) { t.now = now }
