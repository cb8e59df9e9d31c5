package faults

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

// BackendSettings is what the admin endpoint of an MCP server reads and writes.
type BackendSettings struct {
	// Unauthorized answers the next so many requests with 401; -1 means all.
	Unauthorized int `json:"unauthorized,omitempty"`
	// DelayMS holds each request back, in milliseconds.
	DelayMS int `json:"delayMs,omitempty"`
	// Down answers 503.
	Down bool `json:"down,omitempty"`
	// Drop closes the connection without an answer.
	Drop bool `json:"drop,omitempty"`
}

// Validate names what is wrong with the settings.
func (s BackendSettings) Validate() error {
	if s.Unauthorized < -1 || s.DelayMS < 0 {
		return errors.New("unauthorized is -1, 0 or a count; delayMs cannot be negative")
	}
	return nil
}

// Backend counts and breaks the requests of one MCP server.
type Backend struct {
	mu       sync.Mutex
	settings BackendSettings
	counts   map[string]Count
}

// NewBackend returns a Backend that breaks nothing yet.
func NewBackend() *Backend { return &Backend{counts: map[string]Count{}} }

// Count notes one more event of a kind, e.g. "tools/call", and how it went.
func (b *Backend) Count(kind string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counts[kind]
	c.Requests++
	if ok {
		c.Succeeded++
	}
	b.counts[kind] = c
}

func (b *Backend) take() BackendSettings {
	b.mu.Lock()
	defer b.mu.Unlock()
	hit := b.settings
	if b.settings.Unauthorized > 0 {
		b.settings.Unauthorized--
	}
	return hit
}

// Wrap puts the faults in front of next. Requests that are hit by the 401 go to
// refuse, which answers as the server does for a credential that is no good.
func (b *Backend) Wrap(next, refuse http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hit := b.take()
		b.Count("HTTP "+r.Method, !hit.Down && !hit.Drop && hit.Unauthorized == 0)
		if hit.DelayMS > 0 && !wait(r.Context(), time.Duration(hit.DelayMS)*time.Millisecond) {
			panic(http.ErrAbortHandler)
		}
		switch {
		case hit.Drop:
			panic(http.ErrAbortHandler)
		case hit.Down:
			http.Error(w, "switched-on fault: down", http.StatusServiceUnavailable)
		case hit.Unauthorized != 0:
			refuse.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
