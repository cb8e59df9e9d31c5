package watch

import (
	"log/slog"
	"testing"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// A gateway that does not read must cost neither memory nor the others' events.
func TestASlowWatcherIsSentAwayAndTheOthersAreNot(t *testing.T) {
	t.Parallel()
	f := NewFeed(secret.String{}, slog.New(slog.DiscardHandler))
	slow, _ := f.subscribe()
	quick, leave := f.subscribe()
	defer leave()
	const events = queueSize + 10
	for i := range int64(events) {
		f.send(message{store.Event{Position: i + 1, SessionID: "s"}})
		if m := <-quick.queue; m.Position != i+1 {
			t.Fatalf("position %d, want %d", m.Position, i+1)
		}
	}
	n := 0
	for m := range slow.queue {
		if n++; m.Position != int64(n) {
			t.Fatalf("position %d, want %d", m.Position, n)
		}
	}
	if n != queueSize || fault.KindOf(slow.err) != fault.Unavailable {
		t.Errorf("the slow watcher got %d events, then %v", n, slow.err)
	}
}
