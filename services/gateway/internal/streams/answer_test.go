package streams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine.dev/internal/fault"
)

// Whoever has many calls under way must not have one refused for it, and a call
// gets the drain time to end on its own.
func TestAnAnswerIsAStreamOnlyWhenItLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(t, 2)
		who := person("alice", "1", time.Time{})
		open := func() error {
			_, done, err := s.Open(t.Context(), who, "repos")
			if err == nil {
				done()
			}
			return err
		}
		causes := make(chan error, 5)
		answer := func() func() {
			return s.Answer(t.Context(), who, "repos", func(cause error) { causes <- cause })
		}
		var dones []func()
		for range 3 { // one more than there may be streams
			dones = append(dones, answer())
		}
		answer()() // is over at once
		if err := open(); err != nil {
			t.Errorf("a stream beside short answers: %v", err)
		}
		time.Sleep(longAfter)
		synctest.Wait()
		if err := open(); fault.ReasonOf(err) != reasonTooMany {
			t.Errorf("a stream beside answers that last: %v", err)
		}
		dones[0]()
		dones[1]()
		if err := open(); err != nil {
			t.Errorf("a stream beside one answer that lasts: %v", err)
		}
		short := answer()
		s.Drain()
		synctest.Wait()
		if len(causes) != 1 || fault.ReasonOf(<-causes) != ReasonDraining {
			t.Error("the answer that lasts was not told to end, or another one was")
		}
		time.Sleep(longAfter)
		synctest.Wait()
		if len(causes) != 1 {
			t.Error("an answer that lasts during the stop was not told to end")
		}
		short()
		dones[2]()
		if len(s.count) != 0 {
			t.Errorf("%d are still counted", len(s.count))
		}
	})
}

func TestAnAnswerMayEndInTheMomentItLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(t, 0)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), longAfter)
			done := s.Answer(ctx, person("alice", "1", time.Time{}), "repos", func(error) {})
			<-ctx.Done()
			cancel()
			done()
		}
		synctest.Wait()
		if len(s.count) != 0 {
			t.Errorf("%d are still counted", len(s.count))
		}
	})
}
