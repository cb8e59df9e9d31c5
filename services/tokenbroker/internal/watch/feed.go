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
	readLimit   = 1000
	queueSize   = 1024
)

// Feed reads the event log and hands each event to all watchers.
type Feed struct {
	url    secret.String
	logger *slog.Logger

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	ended    error // why there are no watchers any more
}

// NewFeed returns a feed that reads over a connection to url; Run does its work.
// The connection should be direct: through a transaction pooler nothing wakes it.
func NewFeed(url secret.String, logger *slog.Logger) *Feed {
	return &Feed{url: url, logger: logger, watchers: map[*watcher]struct{}{}}
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

// subscribe adds a watcher; leave must be called when done.
func (f *Feed) subscribe() (w *watcher, leave func()) {
	w = &watcher{queue: make(chan message, queueSize)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != nil {
		w.err = f.ended
		close(w.queue)
		return w, func() {}
	}
	f.watchers[w] = struct{}{}
	return w, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(w, nil)
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
			f.dropAll(err)
		}
		f.logger.LogAttrs(ctx, slog.LevelWarn, "the event log cannot be read: watchers hear nothing", fault.Attr(err))
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
		*position, err = store.Head(ctx, conn)
		return false, err
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
