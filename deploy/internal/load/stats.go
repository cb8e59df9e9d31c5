package load

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Stats is what happened since the start.
type Stats struct {
	Seconds   float64 `json:"seconds"`
	Calls     int     `json:"calls"`     // tool calls with the right answer
	Sessions  int     `json:"sessions"`  // MCP sessions opened
	Logins    int     `json:"logins"`    // whole logins, code redemption included
	Refreshes int     `json:"refreshes"` // refresh grants
	Failed    int     `json:"failed"`    // of all these: no answer, a wrong one, a broken connection
	// Unavailable counts those that were told clearly, and at once, to come again.
	Unavailable int `json:"unavailable"`
	// SlowestMS is the longest of them, in milliseconds, since the line before.
	SlowestMS int64 `json:"slowest_ms"`
	// Last is the last of the failed and the unavailable, for people; LastBegan is when it began,
	// LastSeconds when it ended.
	Last        string  `json:"last,omitempty"`
	LastBegan   float64 `json:"last_began,omitempty"`
	LastSeconds float64 `json:"last_seconds,omitempty"`
}

// recorder counts; it is safe for concurrent use.
type recorder struct {
	begin time.Time
	log   io.Writer

	mu    sync.Mutex
	stats Stats
}

// note counts one thing that ended with err.
func (r *recorder) note(what string, count func(*Stats) *int, begin time.Time, err error) {
	took := time.Since(begin)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.SlowestMS = max(r.stats.SlowestMS, took.Milliseconds())
	if err == nil {
		*count(&r.stats)++
		return
	}
	kind := "failure"
	if unavailable(err) && took < promptly {
		kind = "unavailable"
		r.stats.Unavailable++
	} else {
		r.stats.Failed++
	}
	r.stats.Last = fmt.Sprintf("%s: %v", what, err)
	r.stats.LastBegan, r.stats.LastSeconds = begin.Sub(r.begin).Seconds(), time.Since(r.begin).Seconds()
	_ = json.NewEncoder(r.log).Encode(map[string]any{ // nobody to tell
		kind: what, "error": err.Error(), "seconds": r.stats.LastSeconds, "took_ms": took.Milliseconds(),
	})
}

// line writes the stats.
func (r *recorder) line() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Seconds = time.Since(r.begin).Seconds()
	err := json.NewEncoder(r.log).Encode(r.stats)
	r.stats.SlowestMS = 0
	return err
}

func calls(s *Stats) *int     { return &s.Calls }
func sessions(s *Stats) *int  { return &s.Sessions }
func logins(s *Stats) *int    { return &s.Logins }
func refreshes(s *Stats) *int { return &s.Refreshes }
