package store_test

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestClaimedSessionEndsGoToOneReplicaAndComeBackAfterTheLease(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const ends = 40
	for range ends {
		f.must(f.QueueSessionEnd(t.Context(), rand.Text(), brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED))
	}
	var mu sync.Mutex
	var claimed []string
	race(t, fault.Internal, func(ctx context.Context, _ int) error {
		got, err := f.ClaimSessionEnds(ctx, 5, time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for _, e := range got {
			claimed = append(claimed, e.SessionID)
		}
		return err
	})
	slices.Sort(claimed)
	if n := len(slices.Compact(slices.Clone(claimed))); n != len(claimed) || n != ends {
		t.Errorf("%d claims of %d sessions, want %d of each", len(claimed), n, ends)
	}
	f.exec(`UPDATE authserver.session_ends SET next_attempt_at = now()`)
	again, err := f.ClaimSessionEnds(t.Context(), 1, time.Minute)
	f.must(err)
	if len(again) != 1 || again[0].Attempts != 2 || again[0].Reason != brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED {
		t.Errorf("after the lease: %+v", again)
	}
	f.must(f.RetrySessionEnd(t.Context(), again[0].SessionID, time.Hour))
	f.must(f.SessionEndDone(t.Context(), claimed[0]))
}

func TestTheBacklogTellsHowLongASessionIsNotOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	b, err := f.Backlog(t.Context())
	f.must(err)
	if b != (store.Backlog{}) {
		t.Errorf("an empty database has a backlog: %+v", b)
	}
	f.must(f.QueueSessionEnd(t.Context(), "s1", brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED))
	f.must(f.QueueSessionEnd(t.Context(), "s2", brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED))
	f.exec(`UPDATE authserver.session_ends SET created_at = now() - interval '5 minutes' WHERE session_id = 's1'`)
	f.request("r1")
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	f.request("r2")
	f.approved("r3")
	r := f.approved("r4")
	r.Phase = store.PhaseConfirm
	f.must(f.SaveRequest(t.Context(), r))
	if b, err = f.Backlog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.OldestEnd < 5*time.Minute || b.OldestEnd > 6*time.Minute {
		t.Errorf("the oldest end has waited %v", b.OldestEnd)
	}
	b.OldestEnd = 0
	if want := (store.Backlog{SessionEnds: 2, Consent: 1, Legs: 1, Confirm: 1}); b != want {
		t.Errorf("backlog %+v, want %+v", b, want)
	}
}
