package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

var policy = store.SweepPolicy{EndedGrants: 24 * time.Hour, UnusedClients: 24 * time.Hour, IdleClients: 30 * 24 * time.Hour, Grace: time.Minute}

func TestSweepingEndsWhatWasAbandonedAndKeepsWhatLives(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.request("never-approved")
	f.approved("abandoned")
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	f.approved("under-way")
	f.code("unredeemed")
	f.active("run-out")
	f.exec(`UPDATE authserver.grants SET tokens_until = now() - interval '2 minutes'`)
	f.active("alive")
	f.active("long-over")
	f.exec(`UPDATE authserver.grants SET status = 'ended', ended_at = now() - interval '2 days' WHERE id = 'long-over'`)

	swept, err := f.Sweep(t.Context(), policy)
	f.must(err)
	if want := (store.Swept{Requests: 2, Grants: 2, Records: 1}); swept != want {
		t.Errorf("swept %+v, want %+v", swept, want)
	}
	rows, err := f.ClaimSessionEnds(t.Context(), 10, time.Minute)
	f.must(err)
	got := map[string]brokerv1.SessionEndReason{}
	for _, e := range rows {
		got[e.SessionID] = e.Reason
	}
	want := map[string]brokerv1.SessionEndReason{
		"session-abandoned":  brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED,
		"session-unredeemed": brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED,
		"session-run-out":    brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := f.Request(t.Context(), "under-way", browser); err != nil {
		t.Error("a living chain was swept")
	}
	if _, alive, err := f.GrantAlive(t.Context(), "session-alive", "user-1"); err != nil || !alive {
		t.Error("a living grant was swept")
	}
}

func TestTheLegThatAPersonNeverCameBackFromIsNamed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	leg := func(id string) *store.AuthorizationRequest {
		r := f.approved(id)
		f.must(f.StartLeg(t.Context(), "state-"+id, store.Leg{RequestID: id, Provider: "corp", RedirectURI: "https://as.example/cb", Sealed: []byte("x")}))
		return r
	}
	take := func(id string) {
		_, _, err := f.TakeLeg(t.Context(), "state-"+id, []string{"corp"}, browser, 0)
		f.must(err)
	}
	leg("away")
	leg("interrupted") // came back, and nothing came of it
	take("interrupted")
	linked := leg("linked") // came back well; the next leg could not begin
	take("linked")
	linked.Progress.Providers[0].State = store.LinkLinked
	f.must(f.SaveRequest(t.Context(), linked))
	asked := leg("asked") // is shown a question after its last leg
	take("asked")
	asked.Phase = store.PhaseConfirm
	f.must(f.SaveRequest(t.Context(), asked))
	f.approved("not-sent") // no leg could begin
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)

	_, err := f.Sweep(t.Context(), policy)
	f.must(err)
	rows, err := f.ClaimSessionEnds(t.Context(), 10, time.Minute)
	f.must(err)
	got := map[string]store.FailedLeg{}
	for _, e := range rows {
		got[e.SessionID] = e.Failed
	}
	abandoned := store.FailedLeg{Provider: "corp", Reason: brokerv1.SkipReason_SKIP_REASON_ABANDONED}
	want := map[string]store.FailedLeg{
		"session-away": abandoned, "session-interrupted": abandoned, "session-linked": {}, "session-asked": {}, "session-not-sent": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSweepingNeverTakesARegistrationThatIsInUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, id := range []string{"fresh", "unused", "tried", "long-tried", "idle", "in-chain", "recent"} {
		f.client(id)
	}
	f.active("g1") // of client-1
	r := f.request("r1")
	f.exec(`UPDATE authserver.authorization_requests SET client_id = 'in-chain' WHERE id = $1`, r.ID)
	f.exec(`UPDATE authserver.clients SET tried_at = NULL, created_at = now() - interval '25 hours' WHERE id <> 'fresh'`)
	f.exec(`UPDATE authserver.clients SET tried_at = now() - interval '6 days' WHERE id = 'tried'`)
	f.exec(`UPDATE authserver.clients SET tried_at = now() - interval '8 days' WHERE id = 'long-tried'`)
	f.exec(`UPDATE authserver.clients SET used_at = now() - interval '31 days' WHERE id IN ('idle', 'client-1')`)
	f.exec(`UPDATE authserver.clients SET used_at = now() - interval '20 days' WHERE id = 'recent'`)
	swept, err := f.Sweep(t.Context(), policy)
	f.must(err)
	if swept.Clients != 3 {
		t.Errorf("%d registrations swept, want three", swept.Clients)
	}
	for id, want := range map[string]bool{
		"fresh": true, "unused": false, "tried": true, "long-tried": false, "idle": false, "in-chain": true, "recent": true, "client-1": true,
	} {
		if _, err := f.Client(t.Context(), id); (err == nil) != want {
			t.Errorf("%s: kept = %v, want %v (%v)", id, err == nil, want, err)
		}
	}
	if _, err := f.Client(t.Context(), "unused"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a swept client answers %v", err)
	}
}
