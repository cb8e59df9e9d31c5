package endpoint

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// moment decides, once, whether a request is sent. What a request spends is in its
// body, which the transport reads when it has a connection, just before it writes:
// then it is either sent, or, past its deadline or given up, never. The deadline is
// looked up there too, because a process that was stopped runs on before its timers
// fire, and somebody else may present the same token by then.
type moment struct {
	deadline time.Time // zero without one
	state    atomic.Int32
}

const (
	undecided int32 = iota
	sent
	given // up
)

func newMoment(ctx context.Context) *moment {
	m := &moment{}
	m.deadline, _ = ctx.Deadline()
	return m
}

// late reports whether the deadline has passed, by the monotonic clock or by that of
// the wall: the former stands still while a machine is suspended.
func (m *moment) late() bool {
	now := time.Now()
	return !m.deadline.IsZero() && (!now.Before(m.deadline) || !now.Round(0).Before(m.deadline.Round(0)))
}

// open reports whether the request may be sent, and then takes it for sent.
func (m *moment) open() bool {
	if m.late() {
		m.close()
		return false
	}
	return m.state.CompareAndSwap(undecided, sent) || m.state.Load() == sent
}

// close ends the moment and reports whether the request may have been sent.
func (m *moment) close() bool {
	return !m.state.CompareAndSwap(undecided, given) && m.state.Load() == sent
}

// guard makes the request ask the moment before it is sent. One without a body
// spends nothing, and is taken for sent once it has a connection.
func (m *moment) guard(r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { m.state.CompareAndSwap(undecided, sent) },
		}))
	}
	body, again := r.Body, r.GetBody
	r.Body = &guarded{ReadCloser: body, m: m}
	// For connections that turn out to be closed before anything was written.
	r.GetBody = func() (io.ReadCloser, error) {
		body, err := again()
		return &guarded{ReadCloser: body, m: m}, err
	}
	return r
}

type guarded struct {
	io.ReadCloser
	m *moment
}

func (g *guarded) Read(p []byte) (int, error) {
	if !g.m.open() {
		return 0, context.DeadlineExceeded
	}
	return g.ReadCloser.Read(p)
}
