package credentials

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/caller"
)

// unwatched is a manager for which there is nothing to watch.
func unwatched(cfg *Config) { cfg.Sessions = false }

func TestWarmCallsDoNotAskTheBroker(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(1)}
	m := newManager(t, broker, unwatched)
	for range 3 {
		mustGet(t, m, "v1")
	}
	if n := broker.count(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestHeadersAreCanonicalAndHiddenFromLogs(t *testing.T) {
	t.Parallel()
	m := newManager(t, &fakeBroker{answer: numbered(1)}, unwatched)
	cred, err := m.Get(t.Context(), alice(), "repos")
	if err != nil {
		t.Fatal(err)
	}
	if len(cred.Headers) != 1 || cred.Headers[0].Name != "Authorization" || cred.Headers[0].Value.Reveal() != "Bearer token-1" {
		t.Errorf("headers %v", cred.Headers)
	}
	if text := cred.Headers[0].Value.String(); text != secret.Redacted {
		t.Errorf("prints as %q", text)
	}
}

func TestManyCallersOfOneCredentialMakeOneCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{answer: numbered(1), hold: make(chan struct{})}
		m := newManager(t, broker, unwatched)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { mustGet(t, m, "v1") })
		}
		// One who goes away must not take the call with him.
		gone, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := m.Get(gone, alice(), "repos"); fault.KindOf(err) != fault.Canceled {
				t.Errorf("error %v, want Canceled", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(broker.hold)
		wg.Wait()
		if n := broker.count(); n != 1 {
			t.Errorf("%d calls, want 1", n)
		}
	})
}

func TestCredentialsOfTwoPeopleAndTwoBackendsAreNeverMixed(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(1)}
	m := newManager(t, broker, unwatched)
	bob := caller.New(caller.Claims{Issuer: "https://issuer", Subject: "bob", SessionID: "s2"}, secret.New("other"))
	seen := map[string]bool{}
	for _, who := range []*caller.Caller{alice(), bob} {
		for _, backend := range []string{"repos", "payroll"} {
			cred, err := m.Get(t.Context(), who, backend)
			if err != nil {
				t.Fatal(err)
			}
			seen[cred.Version] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d different credentials, want 4", len(seen))
	}
}

func TestCredentialIsNotUsedUpToItsLastSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{answer: func(n int) *brokerv1.GetCredentialResponse {
			r := numbered(1)(n)
			r.ExpiresAt = timestamppb.New(time.Now().Add(time.Minute))
			return r
		}}
		m := newManager(t, broker, unwatched)
		mustGet(t, m, "v1")
		time.Sleep(time.Minute - expiryMargin)
		mustGet(t, m, "v1")
		time.Sleep(time.Second)
		mustGet(t, m, "v2")
	})
}

func TestCredentialWithoutEndIsAskedForAgainInTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{answer: func(n int) *brokerv1.GetCredentialResponse {
			r := numbered(1)(n)
			r.ExpiresAt = nil
			return r
		}}
		m := newManager(t, broker, unwatched)
		mustGet(t, m, "v1")
		time.Sleep(DefaultMaxAge + time.Second)
		mustGet(t, m, "v2")
	})
}

func TestErrorsOfTheBrokerKeepTheirReason(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		reason string
		kind   fault.Kind
	}{
		"connection required": {fault.New(fault.Precondition, "x").WithReason(ReasonConnectionRequired, "provider", "octohub"), ReasonConnectionRequired, fault.Precondition},
		"broker down":         {fault.New(fault.Unavailable, ""), ReasonBrokerUnavailable, fault.Unavailable},
		"broker slow":         {context.DeadlineExceeded, ReasonBrokerUnavailable, fault.Unavailable},
		"broker's database":   {fault.New(fault.Unavailable, "x").WithReason("database_unavailable"), ReasonBrokerUnavailable, fault.Unavailable},
		"its database, slow":  {fault.New(fault.Timeout, "x").WithReason("database_timeout"), ReasonBrokerUnavailable, fault.Unavailable},
		"provider down":       {fault.New(fault.Unavailable, "x").WithReason(ReasonUpstreamUnavailable, "provider", "corp"), ReasonUpstreamUnavailable, fault.Unavailable},
		"defect":              {errors.New("defect"), "", fault.Internal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, &fakeBroker{err: tt.err}, unwatched)
			_, err := m.Get(t.Context(), alice(), "repos")
			if fault.ReasonOf(err) != tt.reason || fault.KindOf(err) != tt.kind {
				t.Errorf("%s %q, want %s %q", fault.KindOf(err), fault.ReasonOf(err), tt.kind, tt.reason)
			}
		})
	}
}

func TestErrorsAreNotRemembered(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(1), err: fault.New(fault.Unavailable, "")}
	m := newManager(t, broker, unwatched)
	if _, err := m.Get(t.Context(), alice(), "repos"); err == nil {
		t.Fatal("no error")
	}
	broker.set(func() { broker.err = nil })
	mustGet(t, m, "v2")
}

func TestRejectedCredentialIsReportedOnceAndReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{answer: numbered(1), renewed: true}
		m := newManager(t, broker, unwatched)
		first, err := m.Get(t.Context(), alice(), "repos")
		if err != nil {
			t.Fatal(err)
		}
		report := func(cred *Credential) bool {
			t.Helper()
			renewed, err := m.Rejected(t.Context(), alice(), "repos", cred)
			if err != nil {
				t.Fatal(err)
			}
			return renewed
		}
		if !report(first) {
			t.Fatal("not renewed")
		}
		if !report(first) { // a second request that had used it
			t.Error("the second report says that there is nothing new")
		}
		mustGet(t, m, "v2")
		if !report(first) { // and a late one
			t.Error("a late report says that there is nothing new")
		}
		second, err := m.Get(t.Context(), alice(), "repos")
		if err != nil {
			t.Fatal(err)
		}
		if report(second) { // the backend refuses everything
			t.Error("a fresh credential was renewed at once")
		}
		time.Sleep(renewEvery)
		if !report(second) {
			t.Error("not renewed later")
		}
		if want := []string{"v1", "v2"}; !slices.Equal(broker.reports, want) {
			t.Errorf("reports %v, want %v", broker.reports, want)
		}
	})
}

// The renewal is an event of the connection, and comes back on the watch.
func TestABackendThatRefusesEverythingIsRememberedOverItsRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{answer: numbered(1), renewed: true}
		m := newManager(t, broker, unwatched)
		for range 3 {
			cred, err := m.Get(t.Context(), alice(), "repos")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Rejected(t.Context(), alice(), "repos", cred); err != nil {
				t.Fatal(err)
			}
			m.cache.dropConnection(cred.ConnectionID)
		}
		if len(broker.reports) != 1 {
			t.Errorf("reports %v, want the first", broker.reports)
		}
	})
}

func TestReportOvertakesACallThatBeganBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{answer: numbered(1), renewed: true}
		m := newManager(t, broker, unwatched)
		first, err := m.Get(t.Context(), alice(), "repos")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(DefaultMaxAge + time.Second) // the next Get asks, and is held up
		hold := make(chan struct{})
		broker.set(func() { broker.hold = hold })
		go m.Get(t.Context(), alice(), "repos")
		synctest.Wait()
		broker.set(func() { broker.hold = nil })
		if _, err := m.Rejected(t.Context(), alice(), "repos", first); err != nil {
			t.Fatal(err)
		}
		mustGet(t, m, "v3") // not the answer that is under way
		close(hold)
		synctest.Wait()
		mustGet(t, m, "v3")
	})
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	m := newManager(t, &fakeBroker{answer: numbered(1)}, func(cfg *Config) { cfg.Sessions = false; cfg.Size = 2 * shardCount })
	for i := range 1000 {
		who := caller.New(caller.Claims{Issuer: "i", Subject: "s", SessionID: string(rune('a'+i%26)) + string(rune(i))}, secret.New("t"))
		if _, err := m.Get(t.Context(), who, "repos"); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.cache.len(); n > 2*shardCount {
		t.Errorf("%d entries, want at most %d", n, 2*shardCount)
	}
	for i := range m.cache.shards {
		s := &m.cache.shards[i]
		indexed := 0
		for _, keys := range s.byConnection {
			indexed += len(keys)
		}
		if indexed != len(s.entries) {
			t.Errorf("shard %d: %d indexed, %d entries", i, indexed, len(s.entries))
		}
	}
}

func BenchmarkGetWarm(b *testing.B) {
	m, err := New(Config{Broker: &fakeBroker{answer: numbered(1)}, ConfigDigest: "d", Telemetry: telemetry.Discard()})
	if err != nil {
		b.Fatal(err)
	}
	who := alice()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := m.Get(b.Context(), who, "repos"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func TestAConfigurationThatTheBrokerDoesNotKnowIsExplainedAndGottenOver(t *testing.T) {
	t.Parallel()
	broker := &fakeBroker{answer: numbered(1)}
	m := newManager(t, broker, func(cfg *Config) { cfg.Sessions = false })
	refuse := func(err error) { broker.set(func() { broker.err = err }) }
	unknown := fault.New(fault.Precondition, "the digest").WithReason(ReasonConfigUnknown)
	for _, behind := range []string{"token broker has an older", "gateway has an older"} {
		refuse(unknown)
		_, err := m.Get(t.Context(), alice(), "other")
		if f := fault.From(err); f.Kind != fault.Unavailable || f.Reason != ReasonConfigUnknown || !strings.Contains(f.Error(), behind) {
			t.Errorf("error %v, want one that says: %s", err, behind)
		}
		refuse(nil)
		if _, err := m.Get(t.Context(), alice(), "repos"); err != nil {
			t.Errorf("once the broker knows it: %v", err)
		}
	}
}
