package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Modes of TokenFault.
const (
	// ModeError answers an OAuth error, Error (default invalid_grant).
	ModeError = "error"
	// ModeStatus answers Status (default 500) with a text body.
	ModeStatus = "status"
	// ModeGarbage answers 200 with JSON that has no token in it.
	ModeGarbage = "garbage"
	// ModeHang answers nothing until the client gives up.
	ModeHang = "hang"
	// ModeLost does the work and then drops the connection without an answer.
	ModeLost = "lost"
	// ModeSlow does the work after DelayMS.
	ModeSlow = "slow"
)

// TokenFault is what goes wrong at the token endpoint.
type TokenFault struct {
	Mode   string `json:"mode"`
	Error  string `json:"error,omitempty"`
	Status int    `json:"status,omitempty"`
	// DelayMS is how long ModeSlow waits, in milliseconds.
	DelayMS int `json:"delayMs,omitempty"`
	// Grant limits the fault to one grant_type; empty means all.
	Grant string `json:"grant,omitempty"`
	// Times is how many requests are hit; zero means all, until switched off.
	Times int `json:"times,omitempty"`
}

// ProviderSettings is what the admin endpoint of a provider reads and writes.
type ProviderSettings struct {
	Token *TokenFault `json:"token,omitempty"`
	// Authorize refuses authorization requests with this OAuth error
	// (access_denied or server_error) before anybody is asked anything.
	Authorize string `json:"authorize,omitempty"`
	// WrongNonce puts another nonce than was asked for into ID tokens.
	WrongNonce bool `json:"wrongNonce,omitempty"`
	// ClockAheadS is by how many seconds the clock that ID tokens are dated with is
	// ahead; negative, it is behind.
	ClockAheadS int `json:"clockAheadS,omitempty"`
}

// Validate names what is wrong with the settings.
func (s ProviderSettings) Validate() error {
	switch s.Authorize {
	case "", "access_denied", "server_error":
	default:
		return fmt.Errorf("authorize: %q is not access_denied or server_error", s.Authorize)
	}
	if s.Token == nil {
		return nil
	}
	switch s.Token.Mode {
	case ModeError, ModeStatus, ModeGarbage, ModeHang, ModeLost, ModeSlow:
	default:
		return fmt.Errorf("token.mode: %q is not one of error, status, garbage, hang, lost, slow", s.Token.Mode)
	}
	if s.Token.Status != 0 && (s.Token.Status < 400 || s.Token.Status > 599) {
		return fmt.Errorf("token.status: %d is not an error status", s.Token.Status)
	}
	if s.Token.Times < 0 || s.Token.DelayMS < 0 {
		return fmt.Errorf("token: times and delayMs cannot be negative")
	}
	return nil
}

// Count tells how many requests came and how many got a good answer.
type Count struct {
	Requests  int `json:"requests"`
	Succeeded int `json:"succeeded"`
}

// Provider counts and breaks the token requests of one provider.
type Provider struct {
	errorStatus int
	succeeded   func(status int, body []byte) bool

	mu       sync.Mutex
	settings ProviderSettings
	counts   map[string]Count
}

// NewProvider returns a Provider that breaks nothing yet. OAuth errors are sent
// with errorStatus (400 by RFC 6749, 200 in the manner of GitHub); succeeded
// tells a good answer of the token endpoint from a bad one.
func NewProvider(errorStatus int, succeeded func(status int, body []byte) bool) *Provider {
	return &Provider{errorStatus: errorStatus, succeeded: succeeded, counts: map[string]Count{}}
}

// Authorize returns the error with which authorization requests are to be
// refused, or "".
func (p *Provider) Authorize() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settings.Authorize
}

// WrongNonce reports whether ID tokens are to carry a wrong nonce.
func (p *Provider) WrongNonce() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settings.WrongNonce
}

// ClockAhead is by how much the clock that ID tokens are dated with is ahead.
func (p *Provider) ClockAhead() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.settings.ClockAheadS) * time.Second
}

// take counts a request and returns the fault that hits it, if any.
func (p *Provider) take(grant string) *TokenFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(grant, Count{Requests: 1})
	f := p.settings.Token
	if f == nil || (f.Grant != "" && f.Grant != grant) {
		return nil
	}
	hit := *f
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			p.settings.Token = nil
		}
	}
	return &hit
}

func (p *Provider) countSuccess(grant string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(grant, Count{Succeeded: 1})
}

// maxKinds bounds the counters: the grant type is the client's text.
const maxKinds = 32

// add is called with the lock held.
func (p *Provider) add(grant string, more Count) {
	if _, known := p.counts[grant]; !known && len(p.counts) >= maxKinds {
		grant = "other"
	}
	c := p.counts[grant]
	p.counts[grant] = Count{c.Requests + more.Requests, c.Succeeded + more.Succeeded}
}

// Token wraps a token endpoint. The request's form must be parsed.
func (p *Provider) Token(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant := r.PostForm.Get("grant_type")
		f := p.take(grant)
		mode := ""
		if f != nil {
			mode = f.Mode
		}
		switch mode {
		case ModeError:
			answerError(w, p.errorStatus, f.Error)
			return
		case ModeStatus:
			status := f.Status
			if status == 0 {
				status = http.StatusInternalServerError
			}
			http.Error(w, "switched-on fault", status)
			return
		case ModeGarbage:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"hello":["world"`)
			return
		case ModeHang:
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case ModeSlow:
			if !wait(r.Context(), time.Duration(f.DelayMS)*time.Millisecond) {
				panic(http.ErrAbortHandler)
			}
		}
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if mode == ModeLost {
			panic(http.ErrAbortHandler)
		}
		if p.succeeded(rec.status, rec.body.Bytes()) {
			p.countSuccess(grant)
		}
		maps.Copy(w.Header(), rec.header)
		w.WriteHeader(rec.status)
		_, _ = w.Write(rec.body.Bytes()) // an error means that the client is gone
	})
}

// recorder keeps an answer back until it is known whether it may be sent.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func answerError(w http.ResponseWriter, status int, code string) {
	if code == "" {
		code = "invalid_grant"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "switched-on fault"})
}

// wait waits for d and reports whether it was not cut short.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
