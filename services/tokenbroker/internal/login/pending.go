package login

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

const (
	// countEvery bounds how often the pending sessions are counted; in between, those
	// that begin here are added. So the bound is kept to what replicas begin in a second.
	countEvery = time.Second
	// fullRetry is when somebody who was refused may try again.
	fullRetry = 5 * time.Second
)

// pending is how many sessions are pending, as far as this replica knows.
type pending struct {
	mu        sync.Mutex
	n         int
	countedAt time.Time
	full      bool // and the log says so
}

// due says that the caller is to count: one at a time, so that a database that hangs
// holds up nobody else.
func (p *pending) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.countedAt) < countEvery {
		return false
	}
	p.countedAt = time.Now()
	return true
}

func (p *pending) set(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n = n
}

// admit lets one more session begin, or refuses it.
func (s *Service) admit(ctx context.Context) error {
	p := &s.pending
	if p.due() {
		n, err := s.cfg.Sessions.PendingSessions(ctx, s.cfg.MaxPending)
		if err != nil {
			return err
		}
		p.set(n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	full := p.n >= s.cfg.MaxPending
	if full != p.full {
		p.full = full
		if full {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "no login can begin: too many are under way", slog.Int("max_pending_sessions", s.cfg.MaxPending))
		} else {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "logins can begin again")
		}
	}
	if full {
		return fault.New(fault.Unavailable, "too many logins are under way").WithReason(reason.TooManyLogins).WithRetryAfter(fullRetry)
	}
	p.n++
	return nil
}
