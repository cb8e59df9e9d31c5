// Package drain ends long streams when the server stops.
//
// Requests that end on their own get the server's drain time to do so. Streams
// that would last for as long as the client likes are told to end at once, so
// that clients connect elsewhere while that time runs:
//
//	stop ─▶ Begin ─▶ every attached context ends with ErrDraining as its cause
//
// What it leaves out: waiting, and closing connections, which the server does.
package drain

import (
	"context"
	"net/http"

	"chatelaine.dev/internal/fault"
)

// ErrDraining is the cause of contexts that ended because the server stops.
var ErrDraining error = fault.New(fault.Unavailable, "the gateway is stopping; connect again").WithReason("DRAINING")

// Drainer knows the streams. It is safe for concurrent use.
type Drainer struct {
	ctx   context.Context // a broadcast, not a request's
	begin context.CancelFunc
}

// New returns a drainer.
func New() *Drainer {
	ctx, begin := context.WithCancel(context.Background())
	return &Drainer{ctx: ctx, begin: begin}
}

// Begin ends all streams, also those that attach later. It does not block.
func (d *Drainer) Begin() { d.begin() }

// Attach returns a context that also ends when Begin is called, with
// ErrDraining as its cause. detach must be called when the stream is over.
func (d *Drainer) Attach(ctx context.Context) (attached context.Context, detach func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.ctx, func() { cancel(ErrDraining) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Streams attaches the GET requests of next, which are streams that last for as
// long as the client likes.
func (d *Drainer) Streams(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			ctx, detach := d.Attach(r.Context())
			defer detach()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}
