package watch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	// pollEvery is how long the feed relies on being woken.
	pollEvery = 500 * time.Millisecond
	beatEvery = time.Second
	// readTimeout bounds one look, and reconnecting.
	readTimeout = 3 * time.Second
	retryAfter  = 250 * time.Millisecond
	// admitTimeout is how long a watch waits for the feed's first look.
	admitTimeout = 5 * time.Second
	readLimit    = 1000
	queueSize    = 1024
)

// Feed reads the event log and hands each event to all watchers.
type Feed struct {
	url secret.String

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	ended    error // why there are no watchers any more
	// following is closed while the feed has a position: what is committed from
	// then on is sent.
	following chan struct{}

	outage process.Outage // only Run notes
}

// NewFeed returns a feed that reads over a connection to url; Run does its work.
// The connection should be direct: through a transaction pooler nothing wakes it.
func NewFeed(url secret.String, logger *slog.Logger) *Feed {
	return &Feed{
		url: url, watchers: map[*watcher]struct{}{}, following: make(chan struct{}),
		outage: process.Outage{
			Logger: logger, Fails: "the event log cannot be read, watchers hear nothing until it can", Works: "the event log can be read again",
		},
	}
}

// message is an event, or a heartbeat when the event has no position.
type message struct{ store.Event }

func (m message) heartbeat() bool { return m.Position == 0 }

// watcher is one stream's queue. It is closed, with err set before, when the
// stream must end.
type watcher struct {
	queue chan message
	err   error
}

// subscribe adds a watcher once the feed knows from where it reads: a watcher that
// came before would lose what is committed up to then. leave must be called when done.
func (f *Feed) subscribe(ctx context.Context) (w *watcher, leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	for {
		w, following, err := f.admit()
		if err != nil {
			return nil, nil, err
		}
		if w != nil {
			return w, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.drop(w, nil)
			}, nil
		}
		select {
		case <-following:
		case <-ctx.Done():
			return nil, nil, fault.New(fault.Unavailable, "the broker does not read the event log yet: try again")
		}
	}
}

// admit adds a watcher, or returns what to wait for.
func (f *Feed) admit() (*watcher, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != nil {
		return nil, nil, f.ended
	}
	select {
	case <-f.following:
		w := &watcher{queue: make(chan message, queueSize)}
		f.watchers[w] = struct{}{}
		return w, nil, nil
	default:
		return nil, f.following, nil
	}
}

// started lets watchers in; the feed has a position.
func (f *Feed) started() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.following)
}

// restart ends all watchers and lets none in until the feed has a position again.
func (f *Feed) restart(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.following = make(chan struct{})
	for w := range f.watchers {
		f.drop(w, why)
	}
}

// drop ends a watcher that is still there; f.mu is held.
func (f *Feed) drop(w *watcher, why error) {
	if _, there := f.watchers[w]; !there {
		return
	}
	delete(f.watchers, w)
	w.err = why
	close(w.queue)
}

func (f *Feed) send(messages ...message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		for _, m := range messages {
			select {
			case w.queue <- m:
				continue
			default:
			}
			f.drop(w, fault.New(fault.Unavailable, "the watcher is too slow: resume from the last position"))
			break
		}
	}
}

// dropAll ends all watchers.
func (f *Feed) dropAll(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		f.drop(w, why)
	}
}

// Run reads events until ctx ends; then every watch ends too. It connects again,
// without end, when the database goes away.
func (f *Feed) Run(ctx context.Context) error {
	position := int64(-1)
	for ctx.Err() == nil {
		err := f.follow(ctx, &position)
		if ctx.Err() != nil {
			break
		}
		if fault.ReasonOf(err) == reason.PositionUnknown { // the log was replaced under us
			position = -1
			f.restart(err)
		}
		f.outage.Note(ctx, err)
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
	f.mu.Lock()
	f.ended = fault.New(fault.Unavailable, "the broker is stopping: resume elsewhere")
	f.mu.Unlock()
	f.dropAll(f.ended)
	return nil
}

// follow reads over one connection until it fails. position is that of the last
// event that was sent, -1 before the first look.
func (f *Feed) follow(ctx context.Context, position *int64) error {
	conn, err := f.connect(ctx)
	if err != nil {
		return postgres.Fault(err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // nothing is in flight
	}()
	beat := time.Now()
	for {
		full, err := f.look(ctx, conn, position)
		if err != nil {
			return err
		}
		f.outage.Note(ctx, nil)
		if now := time.Now(); !now.Before(beat) {
			f.send(message{})
			beat = now.Add(beatEvery)
		}
		if full {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, min(pollEvery, max(time.Millisecond, time.Until(beat))))
		_, err = conn.WaitForNotification(wait)
		woken := wait.Err() == nil
		cancel()
		if err != nil && (woken || conn.IsClosed()) {
			return postgres.Fault(err)
		}
	}
}

func (f *Feed) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	cfg, err := pgx.ParseConfig(f.url.Reveal())
	if err != nil {
		return nil, fault.New(fault.Invalid, "the URL for listening is not valid") // pgx's error may quote it
	}
	cfg.RuntimeParams["application_name"] = "tokenbroker events"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if _, err = conn.Exec(ctx, `LISTEN `+pgx.Identifier{store.EventChannel}.Sanitize()); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// look sends what is new; full is true when there may be more.
func (f *Feed) look(ctx context.Context, conn *pgx.Conn, position *int64) (full bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if *position < 0 {
		head, err := store.Head(ctx, conn)
		if err != nil {
			return false, err
		}
		*position = head
		f.started()
		return false, nil
	}
	events, _, err := store.EventsAfter(ctx, conn, *position, readLimit)
	if err != nil || len(events) == 0 {
		return false, err
	}
	messages := make([]message, len(events))
	for i, e := range events {
		messages[i] = message{e}
	}
	f.send(messages...)
	*position = events[len(events)-1].Position
	return len(events) == readLimit, nil
}
