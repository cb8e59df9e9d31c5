package credentials

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// watching runs f in a bubble with a manager whose watch is open.
func watching(t *testing.T, broker *fakeBroker, f func(t *testing.T, m *Manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, broker, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		f(t, m)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestSilentWatchMakesTheBrokerConfirm(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		synctest.Wait()
		mustGet(t, m, "v1")
		time.Sleep(DefaultMaxUnwatched - time.Millisecond)
		mustGet(t, m, "v1") // still within the bound
		time.Sleep(time.Millisecond)
		mustGet(t, m, "v2") // silence: asked again
		mustGet(t, m, "v2") // which counts for a moment
		time.Sleep(confirmFor)
		broker.set(func() { broker.err = fault.New(fault.Unavailable, "") })
		if _, err := m.Get(t.Context(), alice(), "repos"); fault.ReasonOf(err) != ReasonBrokerUnavailable {
			t.Fatalf("error %v, want %s: a session that ended could still be used", err, ReasonBrokerUnavailable)
		}
	})
}

// How long ago a message came must not depend on what somebody sets the clock to.
func TestAClockThatIsSetBackDoesNotMakeTheCacheFresh(t *testing.T) {
	t.Parallel()
	m := newManager(t, &fakeBroker{answer: numbered(1)}, nil)
	heard := time.Now()
	m.watch.heard.Store(&heard)
	later := heard.Add(DefaultMaxUnwatched)
	stepped := setBack(t, later, 30)
	if m.fresh(stepped) {
		t.Error("the cache is trusted for as long as the clock was set back")
	}
}

// setBack returns t as time.Now would have returned it had the wall clock been set
// back by some seconds: with the same monotonic reading.
func setBack(t *testing.T, at time.Time, seconds uint64) time.Time {
	t.Helper()
	stepped := at
	// The first word of a Time with a monotonic reading: 1 bit that says so, 33 bits
	// of seconds, 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&stepped)) -= seconds << 30
	if stepped.Sub(at) != 0 || at.Unix()-stepped.Unix() != int64(seconds) {
		t.Fatal("this version of Go keeps times in another way: setBack must follow it")
	}
	return stepped
}

func TestHeartbeatsKeepTheCacheWarm(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		for range 60 {
			time.Sleep(time.Second)
			broker.send(heartbeat(10))
			synctest.Wait()
			mustGet(t, m, "v1")
		}
	})
}

// A provider may take its time: only a broker that says nothing at all is at fault.
func TestABrokerThatHangsIsToldFromAProviderThatIsSlow(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		hold := make(chan struct{})
		defer close(hold)
		broker.set(func() { broker.hold = hold })
		broker.send(snapshot(10))
		synctest.Wait()
		for wait, want := range map[time.Duration]string{DefaultMaxUnwatched - time.Second: "", 2 * DefaultMaxUnwatched: ReasonBrokerUnavailable} {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			_, err := m.Get(ctx, alice(), "repos")
			cancel()
			if fault.ReasonOf(err) != want {
				t.Errorf("after %v: %v, want reason %q", wait, err, want)
			}
			broker.send(heartbeat(10))
		}
	})
}

func TestUnfinishedSnapshotDoesNotCountAsWatching(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(sessionEnded(3, "other"))
		synctest.Wait()
		mustGet(t, m, "v1")
		time.Sleep(confirmFor)
		mustGet(t, m, "v2")
	})
}

func TestEndedSessionIsRefusedAndItsStreamsClosed(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		synctest.Wait()
		mustGet(t, m, "v1")
		ctx, detach, err := m.Attach(t.Context(), alice())
		if err != nil {
			t.Fatal(err)
		}
		defer detach()
		broker.send(sessionEnded(11, "s1"))
		<-ctx.Done()
		if reason := fault.ReasonOf(context.Cause(ctx)); reason != ReasonSessionEnded {
			t.Errorf("the stream ended because of %q, want %s", reason, ReasonSessionEnded)
		}
		if _, err := m.Get(t.Context(), alice(), "repos"); fault.ReasonOf(err) != ReasonSessionEnded {
			t.Errorf("Get: error %v, want %s", err, ReasonSessionEnded)
		}
		if _, _, err := m.Attach(t.Context(), alice()); fault.ReasonOf(err) != ReasonSessionEnded {
			t.Errorf("Attach: error %v, want %s", err, ReasonSessionEnded)
		}
		if n := broker.count(); n != 1 {
			t.Errorf("%d calls: the broker was asked for an ended session", n)
		}
	})
}

func TestEndedSessionIsForgottenWhenItsTokensAreDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSessions(time.Hour)
		s.end("s1", time.Now())
		time.Sleep(time.Hour)
		s.pruneLocked(s.shard("s1"), time.Now())
		if !s.has("s1") {
			t.Error("forgotten while a token may still be accepted")
		}
		time.Sleep(clockLeeway + time.Second)
		s.pruneLocked(s.shard("s1"), time.Now())
		if s.has("s1") || s.count.Load() != 0 {
			t.Error("remembered for ever")
		}
	})
}

func TestTooManyEndedSessionsMakeTheBrokerConfirm(t *testing.T) {
	t.Parallel()
	m := newManager(t, &fakeBroker{answer: numbered(1)}, nil)
	now := time.Now()
	m.watch.heard.Store(&now)
	if !m.fresh(now) {
		t.Fatal("not fresh to begin with")
	}
	m.sessions.count.Store(maxEnded)
	m.sessions.end("one too many", now)
	if m.fresh(now) {
		t.Error("the cache is trusted although an end was not remembered")
	}
}

func TestChangedConnectionVoidsItsCredentials(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		synctest.Wait()
		mustGet(t, m, "v1")
		broker.send(connectionChanged(11, "another"))
		synctest.Wait()
		mustGet(t, m, "v1")
		broker.set(func() { broker.answer = numbered(12) })
		broker.send(connectionChanged(12, "c1"))
		synctest.Wait()
		mustGet(t, m, "v2")
	})
}

func TestAnswerOlderThanASeenEventIsThrownAway(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: func(n int) *brokerv1.GetCredentialResponse {
		if n == 1 {
			return numbered(10)(n) // it did not know of event 11
		}
		return numbered(11)(n)
	}}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		hold := make(chan struct{})
		broker.set(func() { broker.hold = hold })
		got := make(chan string, 1)
		go func() {
			cred, err := m.Get(context.Background(), alice(), "repos")
			if err != nil {
				got <- err.Error()
				return
			}
			got <- cred.Version
		}()
		synctest.Wait()
		broker.send(connectionChanged(11, "c1"))
		synctest.Wait()
		close(hold)
		if v := <-got; v != "v2" {
			t.Errorf("credential %s, want v2: one from before the change was handed out", v)
		}
		mustGet(t, m, "v2")
	})
}

func TestBrokerThatIsAlwaysBehindIsAnErrorNotALoop(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		broker.send(connectionChanged(11, "c1"))
		synctest.Wait()
		if _, err := m.Get(t.Context(), alice(), "repos"); fault.ReasonOf(err) != ReasonBrokerUnavailable {
			t.Errorf("error %v, want %s", err, ReasonBrokerUnavailable)
		}
		if n := broker.count(); n != maxVoid {
			t.Errorf("%d calls, want %d", n, maxVoid)
		}
	})
}

func TestWatchResumesWhereItBroke(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(20)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		broker.send(sessionEnded(20, "other"))
		synctest.Wait()
		mustGet(t, m, "v1")
		close(broker.events)
		time.Sleep(maxBackoff)
		synctest.Wait()
		broker.send(snapshot(20)) // nothing was missed
		synctest.Wait()
		mustGet(t, m, "v1")
		if n := len(broker.watches); n != 2 || broker.watches[1].GetAfterPosition() != 20 {
			t.Errorf("watches %v, want the second after 20", broker.watches)
		}
	})
}

func TestSnapshotPositionsDoNotCountUntilItIsComplete(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(20)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(sessionEnded(7, "other"))
		synctest.Wait()
		close(broker.events)
		time.Sleep(maxBackoff)
		synctest.Wait()
		if got := broker.watches[1].GetAfterPosition(); got != 0 {
			t.Errorf("resumes after %d: what the snapshot had not yet told is lost", got)
		}
	})
}

func TestBrokerWithAnotherPastEmptiesTheCache(t *testing.T) {
	t.Parallel()
	tests := map[string]func(f *fakeBroker){
		"its positions went back": func(f *fakeBroker) {},
		"it refuses our position": func(f *fakeBroker) { f.refusing = fault.New(fault.Precondition, "too old") },
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := &fakeBroker{answer: numbered(100)}
			watching(t, broker, func(t *testing.T, m *Manager) {
				broker.send(snapshot(100))
				synctest.Wait()
				mustGet(t, m, "v1")
				broker.set(func() { broker.answer = numbered(5); prepare(broker) })
				close(broker.events)
				time.Sleep(maxBackoff)
				broker.set(func() { broker.refusing = nil })
				time.Sleep(3 * maxBackoff)
				synctest.Wait()
				broker.send(snapshot(5))
				synctest.Wait()
				mustGet(t, m, "v2")
			})
		})
	}
}

func TestFreshStartVoidsWhatHadNotObservedTheSnapshot(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		mustGet(t, m, "v1") // before the snapshot
		broker.set(func() { broker.answer = numbered(12) })
		broker.send(snapshot(12)) // changes of 11 and 12 are not told to a fresh watcher
		synctest.Wait()
		mustGet(t, m, "v2")
	})
}

func TestSilentStreamIsGivenUpForANewOne(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		time.Sleep(2*DefaultMaxUnwatched + callPatience + 2*maxBackoff)
		synctest.Wait()
		if n := len(broker.watches); n < 2 {
			t.Errorf("%d watches: a half-open connection would never be noticed", n)
		}
	})
}

// static answers for a backend whose credential comes from no connection.
func static(position int64) func(int) *brokerv1.GetCredentialResponse {
	return func(n int) *brokerv1.GetCredentialResponse {
		resp := numbered(position)(n)
		resp.ConnectionId = ""
		return resp
	}
}

func TestChangedSessionVoidsItsCredentialsAndGoesOn(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(int64) func(int) *brokerv1.GetCredentialResponse{"of a connection": numbered, "of none": static} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := &fakeBroker{answer: answer(10)}
			watching(t, broker, func(t *testing.T, m *Manager) {
				broker.send(snapshot(10))
				synctest.Wait()
				mustGet(t, m, "v1")
				ctx, detach, err := m.Attach(t.Context(), alice())
				if err != nil {
					t.Fatal(err)
				}
				defer detach()
				broker.send(sessionChanged(11, "another"))
				synctest.Wait()
				mustGet(t, m, "v1")
				broker.send(sessionChanged(12, "s1"))
				synctest.Wait()
				if _, err := m.Get(t.Context(), alice(), "repos"); fault.ReasonOf(err) != ReasonBrokerUnavailable {
					t.Errorf("an answer from before the change was handed out: %v", err)
				}
				broker.set(func() { broker.answer = answer(12) })
				if _, err := m.Get(t.Context(), alice(), "repos"); err != nil {
					t.Errorf("the session is refused: %v", err)
				}
				if ctx.Err() != nil {
					t.Error("a stream of the session was closed")
				}
			})
		})
	}
}

func TestFreshStartVoidsStaticCredentialsToo(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: static(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		mustGet(t, m, "v1")
		broker.set(func() { broker.answer = static(12) })
		broker.send(snapshot(12)) // that the session has changed is not told to a fresh watcher
		synctest.Wait()
		mustGet(t, m, "v2")
	})
}

func TestStreamsAreClosedWhenNobodySaysThatTheirSessionEnded(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		attach := func() context.Context {
			ctx, detach, err := m.Attach(t.Context(), alice())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(detach)
			return ctx
		}
		broker.send(snapshot(10))
		early := attach()
		time.Sleep(DefaultMaxUnwatched - 100*time.Millisecond)
		synctest.Wait()
		late := attach()
		if early.Err() != nil {
			t.Fatal("closed although the watch is alive")
		}
		time.Sleep(100*time.Millisecond + guardEvery)
		synctest.Wait()
		for name, ctx := range map[string]context.Context{"an early one": early, "a late one": late} {
			if ctx.Err() == nil || fault.ReasonOf(context.Cause(ctx)) != ReasonBrokerUnavailable {
				t.Errorf("%s lives on: its session may have ended unheard", name)
			}
		}
		// What is opened now was confirmed by the broker. That does not last.
		confirmed := attach()
		time.Sleep(DefaultMaxUnwatched - guardEvery)
		synctest.Wait()
		if confirmed.Err() != nil {
			t.Error("a stream that was just confirmed is closed")
		}
		time.Sleep(3 * guardEvery)
		synctest.Wait()
		if confirmed.Err() == nil {
			t.Error("a stream that was confirmed once lives on unwatched")
		}
	})
}

func TestStreamsStayOpenWhileTheWatchIsAlive(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(10)}
	watching(t, broker, func(t *testing.T, m *Manager) {
		broker.send(snapshot(10))
		ctx, detach, err := m.Attach(t.Context(), alice())
		if err != nil {
			t.Fatal(err)
		}
		defer detach()
		for range 10 {
			time.Sleep(time.Second)
			broker.send(heartbeat(10))
		}
		close(broker.events) // a broker that restarts and is back in time
		time.Sleep(maxBackoff)
		synctest.Wait()
		broker.send(snapshot(10))
		time.Sleep(DefaultMaxUnwatched - time.Millisecond)
		if ctx.Err() != nil {
			t.Errorf("closed: %v", context.Cause(ctx))
		}
	})
}
