package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a store with a client, and the pool for looking behind it.
type fixture struct {
	*store.Store
	t    *testing.T
	pool *pgxpool.Pool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	pool := pgtest.New(t, store.Migrations())
	f := &fixture{Store: store.New(pool), t: t, pool: pool}
	f.client("client-1")
	return f
}

func (f *fixture) client(id string) {
	f.t.Helper()
	f.must(f.CreateClient(f.t.Context(), &store.Client{
		ID: id, Name: "Example", AuthMethod: "none",
		RedirectURIs: []string{"https://client.example/cb"}, GrantTypes: []string{"authorization_code", "refresh_token"},
		Scopes: []string{"tools"},
	}))
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(fault.Detail(err))
	}
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	_, err := f.pool.Exec(f.t.Context(), sql, args...)
	f.must(err)
}

func (f *fixture) count(sql string, args ...any) (n int) {
	f.t.Helper()
	f.must(f.pool.QueryRow(f.t.Context(), sql, args...).Scan(&n))
	return n
}

func (f *fixture) wantKind(err error, want fault.Kind) {
	f.t.Helper()
	if err == nil || fault.KindOf(err) != want {
		f.t.Fatalf("error %v, want kind %v", err, want)
	}
}

var browser = store.Digest("cookie")

func (f *fixture) request(id string) *store.AuthorizationRequest {
	f.t.Helper()
	r := &store.AuthorizationRequest{
		ID: id, ClientID: "client-1", BrowserHash: browser,
		Params: store.Params{
			RedirectURI: "https://client.example/cb", RedirectURISent: true, State: "xyz",
			Scopes: []string{"tools"}, Resources: []string{"https://gw.example/mcp"}, CodeChallenge: "challenge",
		},
		Progress: store.Progress{Providers: []store.Provider{{
			Name: "corp", OIDC: true, Primary: true, Scopes: []string{"openid"}, Parameters: map[string]string{"a": "b"}, State: store.LinkMissing,
		}}},
	}
	f.must(f.CreateRequest(f.t.Context(), r, 10*time.Minute))
	return r
}

// approved returns a request in PhaseLegs with session "session-"+id.
func (f *fixture) approved(id string) *store.AuthorizationRequest {
	f.t.Helper()
	f.request(id)
	r, err := f.ApproveRequest(f.t.Context(), id, browser, "session-"+id)
	f.must(err)
	return r
}

// code stores a pending grant with a code that lives for a minute.
func (f *fixture) code(id string) store.Grant {
	f.t.Helper()
	g := store.Grant{
		ID: id, SessionID: "session-" + id, UserID: "user-1", ClientID: "client-1", Status: store.GrantPending,
		Scopes: []string{"tools"}, Resources: []string{"https://gw.example/mcp"},
	}
	f.must(f.CreateCode(f.t.Context(), "code-"+id, g, store.Code{
		RedirectURI: "https://client.example/cb", CodeChallenge: "challenge",
		RequestedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	}))
	return g
}

// active stores an active grant with refresh token "rt-"+id.
func (f *fixture) active(id string) store.Grant {
	f.t.Helper()
	g := f.code(id)
	f.must(f.ConsumeCode(f.t.Context(), "code-"+id))
	f.must(f.ActivateGrant(f.t.Context(), id, time.Now().Add(24*time.Hour), time.Now().Add(time.Hour)))
	f.must(f.CreateRefreshToken(f.t.Context(), "rt-"+id, id, time.Now().Add(2*time.Hour)))
	return g
}

func rotation(from, to string) store.Rotation {
	return store.Rotation{
		Old: from, New: to, ExpiresAt: time.Now().Add(time.Hour), TokensUntil: time.Now().Add(time.Hour), SealedAnswer: []byte("sealed"),
	}
}

func TestARequestComesBackAsItWasStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := f.request("r1")
	got, err := f.Request(t.Context(), "r1", browser)
	f.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if left := time.Until(got.ExpiresAt); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("lives for %v, want ten minutes", left)
	}
}

func TestARequestBelongsToItsBrowser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.request("r1")
	other := store.Digest("another cookie")
	_, err := f.Request(t.Context(), "r1", other)
	f.wantKind(err, fault.NotFound)
	_, err = f.ApproveRequest(t.Context(), "r1", other, "s")
	f.wantKind(err, fault.NotFound)
	_, err = f.TakeRequest(t.Context(), "r1", other)
	f.wantKind(err, fault.NotFound)
	if n := f.count(`SELECT count(*) FROM authserver.authorization_requests WHERE phase = 'consent'`); n != 1 {
		t.Error("the request was changed by another browser")
	}
}

func TestAnExpiredRequestIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	f.must(f.StartLeg(t.Context(), "state", store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("x")}))
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	_, _, err := f.TakeLeg(t.Context(), "state", []string{"corp"}, browser)
	f.wantKind(err, fault.NotFound)
	_, err = f.Request(t.Context(), "r1", browser)
	f.wantKind(err, fault.NotFound)
	_, err = f.TakeRequest(t.Context(), "r1", browser)
	f.wantKind(err, fault.NotFound)
	f.wantKind(f.SaveRequest(t.Context(), &store.AuthorizationRequest{ID: "r1", BrowserHash: browser, Phase: store.PhaseLegs, Version: 1}), fault.NotFound)
}

func TestNobodyWritesOverAChangeThatTheyHaveNotSeen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stale := f.approved("r1")
	fresh, err := f.Request(t.Context(), "r1", browser)
	f.must(err)
	fresh.Phase = store.PhaseConfirm
	f.must(f.SaveRequest(t.Context(), fresh))
	fresh.UserID = "u"
	f.must(f.SaveRequest(t.Context(), fresh)) // its own change it has seen
	if err := f.SaveRequest(t.Context(), stale); fault.ReasonOf(err) != store.ReasonChanged {
		t.Errorf("got %v", err)
	}
	got, err := f.Request(t.Context(), "r1", browser)
	f.must(err)
	if got.Phase != store.PhaseConfirm || got.UserID != "u" {
		t.Errorf("the question was undone: %+v", got)
	}
}

func TestALegRunsOnlyBetweenConsentAndConfirmation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	leg := store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("x")}
	f.request("r1")
	f.wantKind(f.StartLeg(t.Context(), "before", leg), fault.NotFound)
	r, err := f.ApproveRequest(t.Context(), "r1", browser, "s")
	f.must(err)
	f.must(f.StartLeg(t.Context(), "during", leg))
	r.Phase = store.PhaseConfirm
	f.must(f.SaveRequest(t.Context(), r))
	_, _, err = f.TakeLeg(t.Context(), "during", []string{"corp"}, browser)
	f.wantKind(err, fault.NotFound)
	f.wantKind(f.StartLeg(t.Context(), "after", leg), fault.NotFound)
}

func TestAStateIsTakenOnceByItsBrowserForItsProvider(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	leg := store.Leg{RequestID: "r1", Provider: "corp", RedirectURI: "https://as.example/cb/corp", Sealed: []byte("sealed")}
	f.must(f.StartLeg(t.Context(), "state", leg))
	for name, try := range map[string]struct {
		state, provider string
		browser         []byte
	}{
		"another state":    {"state2", "corp", browser},
		"another provider": {"state", "octohub", browser},
		"another browser":  {"state", "corp", store.Digest("other")},
		"no browser":       {"state", "corp", nil},
	} {
		if _, _, err := f.TakeLeg(t.Context(), try.state, []string{try.provider}, try.browser); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tt := range []struct {
		state   string
		browser []byte
		want    bool
	}{{"state", browser, false}, {"state", store.Digest("other"), true}, {"state2", store.Digest("other"), false}} {
		if got, err := f.LegElsewhere(t.Context(), tt.state, tt.browser); err != nil || got != tt.want {
			t.Errorf("%s elsewhere: %v, %v", tt.state, got, err)
		}
	}
	got, req, err := f.TakeLeg(t.Context(), "state", []string{"corp"}, browser)
	f.must(err)
	if diff := cmp.Diff(&leg, got); diff != "" {
		t.Error(diff)
	}
	if req.ID != "r1" || req.SessionID != "session-r1" || req.Params.State != "xyz" {
		t.Errorf("request %+v", req)
	}
	_, _, err = f.TakeLeg(t.Context(), "state", []string{"corp"}, browser)
	f.wantKind(err, fault.NotFound)
}

func TestANewLegMakesTheOldStateWorthless(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	f.must(f.StartLeg(t.Context(), "first", store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("1")}))
	f.must(f.StartLeg(t.Context(), "second", store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("2")}))
	_, _, err := f.TakeLeg(t.Context(), "first", []string{"corp"}, browser)
	f.wantKind(err, fault.NotFound)
	_, _, err = f.TakeLeg(t.Context(), "second", []string{"corp"}, browser)
	f.must(err)
	f.wantKind(f.StartLeg(t.Context(), "third", store.Leg{RequestID: "unknown", Provider: "corp", Sealed: []byte("3")}), fault.NotFound)
}

// race runs fn in many goroutines at once and returns how many succeeded; every
// failure must be of the kind.
func race(t *testing.T, kind fault.Kind, fn func(ctx context.Context, i int) error) int {
	t.Helper()
	const runners = 12
	var wins atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range runners {
		wg.Go(func() {
			<-start
			err := fn(t.Context(), i)
			switch {
			case err == nil:
				wins.Add(1)
			case fault.KindOf(err) != kind:
				t.Errorf("runner %d: %s", i, fault.Detail(err))
			}
		})
	}
	close(start)
	wg.Wait()
	return int(wins.Load())
}

func TestOfManyAtOnceExactlyOneGetsThrough(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	tests := map[string]struct {
		kind    fault.Kind
		prepare func()
		try     func(ctx context.Context, i int) error
	}{
		"approve a request": {fault.NotFound, func() { f.request("a") }, func(ctx context.Context, _ int) error {
			_, err := f.ApproveRequest(ctx, "a", browser, rand.Text())
			return err
		}},
		"take a request": {fault.NotFound, func() { f.request("b") }, func(ctx context.Context, _ int) error {
			_, err := f.TakeRequest(ctx, "b", browser)
			return err
		}},
		"take a leg": {fault.NotFound, func() {
			f.approved("c")
			f.must(f.StartLeg(t.Context(), "state-c", store.Leg{RequestID: "c", Provider: "corp", Sealed: []byte("x")}))
		}, func(ctx context.Context, _ int) error {
			_, _, err := f.TakeLeg(ctx, "state-c", []string{"corp"}, browser)
			return err
		}},
		"redeem a code": {fault.Conflict, func() { f.code("d") }, func(ctx context.Context, _ int) error {
			return f.InTx(ctx, func(ctx context.Context) error {
				if err := f.ConsumeCode(ctx, "code-d"); err != nil {
					return err
				}
				return f.ActivateGrant(ctx, "d", time.Now().Add(time.Hour), time.Now().Add(time.Hour))
			})
		}},
		"rotate a refresh token": {fault.Conflict, func() { f.active("e") }, func(ctx context.Context, _ int) error {
			return f.RotateRefreshToken(ctx, "e", rotation("rt-e", rand.Text()))
		}},
		"end a session": {fault.Conflict, func() { f.active("f") }, func(ctx context.Context, _ int) error {
			ended, err := f.EndSession(ctx, "session-f", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR)
			if err == nil && !ended {
				err = fault.New(fault.Conflict, "")
			}
			return err
		}},
	}
	for name, tt := range tests {
		tt.prepare()
		if wins := race(t, tt.kind, tt.try); wins != 1 {
			t.Errorf("%s: %d got through, want 1", name, wins)
		}
	}
	if n := f.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE grant_id = 'e' AND used_at IS NULL`); n != 1 {
		t.Errorf("%d living refresh tokens after the race, want 1", n)
	}
}

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

func TestWhatPostgresCannotStoreIsSimplyNotFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, id := range []string{"a\x00b", "\xff"} {
		_, err := f.Client(t.Context(), id)
		f.wantKind(err, fault.NotFound)
		_, err = f.Request(t.Context(), id, browser)
		f.wantKind(err, fault.NotFound)
		if alive, err := f.GrantAlive(t.Context(), id, id); err != nil || alive {
			t.Errorf("%q: %v, %v", id, alive, err)
		}
	}
}

func TestAUsedCodeIsStillKnown(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := f.code("g1")
	f.must(f.ConsumeCode(t.Context(), "code-g1"))
	c, g, err := f.Code(t.Context(), "code-g1")
	f.must(err)
	if !c.Used || g.SessionID != want.SessionID || c.CodeChallenge != "challenge" {
		t.Errorf("code %+v, grant %+v", c, g)
	}
	_, _, err = f.Code(t.Context(), "code-unknown")
	f.wantKind(err, fault.NotFound)
}

func TestACodeOfAnEndedGrantCannotBeRedeemed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("g1")
	if _, err := f.EndSession(t.Context(), "session-g1", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR); err != nil {
		t.Fatal(err)
	}
	f.wantKind(f.ConsumeCode(t.Context(), "code-g1"), fault.Conflict)
	f.wantKind(f.ActivateGrant(t.Context(), "g1", time.Now(), time.Now()), fault.Conflict)
}

func TestWhatIsOnlyTooLateIsNoSignOfTheft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("late")
	f.exec(`UPDATE authserver.authorization_codes SET expires_at = now()`)
	f.code("used")
	f.must(f.ConsumeCode(t.Context(), "code-used"))
	f.code("ended")
	if _, err := f.EndSession(t.Context(), "session-ended", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"late": store.ReasonCodeOver, "ended": store.ReasonCodeOver, "used": store.ReasonCodeUsed} {
		if err := f.ConsumeCode(t.Context(), "code-"+id); fault.KindOf(err) != fault.Conflict || fault.ReasonOf(err) != want {
			t.Errorf("%s: %v, reason %q", id, err, fault.ReasonOf(err))
		}
	}
	if n := f.count(`SELECT count(*) FROM authserver.session_ends`); n != 1 {
		t.Errorf("%d ends queued, want the one that ended a living grant", n)
	}
	if ended, err := f.EndSession(t.Context(), "session-ended", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR); err != nil || ended {
		t.Errorf("a second end: %v, %v", ended, err)
	}
}

func TestAnAbortedRedemptionLeavesTheCodeUnspent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("g1")
	ctx, err := f.Begin(t.Context())
	f.must(err)
	f.must(f.ConsumeCode(ctx, "code-g1"))
	f.must(f.Rollback(ctx))
	f.must(f.ConsumeCode(t.Context(), "code-g1"))
}

func TestARefreshTokenMayBePresentedAgainWithinItsGrace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.active("g1")
	token := func(signature string) *store.RefreshToken {
		t.Helper()
		tok, _, err := f.RefreshToken(t.Context(), signature, time.Minute)
		f.must(err)
		return tok
	}
	if tok := token("rt-g1"); tok.Used || tok.Replaceable {
		t.Errorf("fresh token: %+v", tok)
	}
	f.must(f.RotateRefreshToken(t.Context(), "g1", rotation("rt-g1", "rt-2")))
	if tok := token("rt-g1"); !tok.Used || !tok.Replaceable || !bytes.Equal(tok.SealedAnswer, []byte("sealed")) {
		t.Errorf("within the grace: %+v", tok)
	}
	f.exec(`UPDATE authserver.refresh_tokens SET used_at = now() - interval '61 seconds' WHERE used_at IS NOT NULL`)
	if tok := token("rt-g1"); !tok.Used || tok.Replaceable || tok.SealedAnswer != nil {
		t.Errorf("after the grace: %+v", tok)
	}
	f.exec(`UPDATE authserver.refresh_tokens SET used_at = now() WHERE used_at IS NOT NULL`)
	f.must(f.RotateRefreshToken(t.Context(), "g1", rotation("rt-2", "rt-3")))
	if tok := token("rt-g1"); !tok.Used || tok.Replaceable || tok.SealedAnswer != nil {
		t.Errorf("once the successor was used: %+v", tok)
	}
	if n := f.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE sealed_answer IS NOT NULL`); n != 1 {
		t.Errorf("%d sealed answers kept, want the newest alone", n)
	}
}

func TestUsedRefreshTokensDoNotPileUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.active("g1")
	f.must(f.RotateRefreshToken(t.Context(), "g1", rotation("rt-g1", "rt-2")))
	f.must(f.RotateRefreshToken(t.Context(), "g1", rotation("rt-2", "rt-3")))
	f.exec(`UPDATE authserver.refresh_tokens SET expires_at = now() WHERE signature_hash IN ($1, $2)`, store.Digest("rt-g1"), store.Digest("rt-3"))
	_, err := f.Sweep(t.Context(), policy)
	f.must(err)
	for signature, want := range map[string]bool{"rt-g1": false, "rt-2": true, "rt-3": true} {
		if _, _, err := f.RefreshToken(t.Context(), signature, time.Minute); (err == nil) != want {
			t.Errorf("%s: kept %v, want %v", signature, err == nil, want)
		}
	}
}

func TestNoTokenOfAnEndedGrantIsRotated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.active("g1")
	ended, err := f.EndSession(t.Context(), "session-g1", brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED)
	f.must(err)
	if !ended {
		t.Error("the grant was not alive")
	}
	f.wantKind(f.RotateRefreshToken(t.Context(), "g1", rotation("rt-g1", "rt-2")), fault.Conflict)
	ends, err := f.ClaimSessionEnds(t.Context(), 10, time.Minute)
	f.must(err)
	if len(ends) != 1 || ends[0].SessionID != "session-g1" || ends[0].Reason != brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED {
		t.Errorf("outbox %+v", ends)
	}
}

func TestOnlyTheLivingSessionOfTheUserIsAlive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("pending")
	f.active("alive")
	f.active("ended")
	f.active("expired")
	f.exec(`UPDATE authserver.grants SET status = 'ended', ended_at = now() WHERE id = 'ended'`)
	f.exec(`UPDATE authserver.grants SET expires_at = now() WHERE id = 'expired'`)
	for _, tt := range []struct {
		session, user string
		want          bool
	}{
		{"session-alive", "user-1", true},
		{"session-alive", "user-2", false},
		{"session-pending", "user-1", false},
		{"session-ended", "user-1", false},
		{"session-expired", "user-1", false},
		{"session-unknown", "user-1", false},
	} {
		got, err := f.GrantAlive(t.Context(), tt.session, tt.user)
		f.must(err)
		if got != tt.want {
			t.Errorf("%s of %s: alive = %v", tt.session, tt.user, got)
		}
	}
}

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
	if alive, err := f.GrantAlive(t.Context(), "session-alive", "user-1"); err != nil || !alive {
		t.Error("a living grant was swept")
	}
}

func TestSweepingNeverTakesARegistrationThatIsInUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, id := range []string{"fresh", "unused", "idle", "in-chain", "recent"} {
		f.client(id)
	}
	f.active("g1") // of client-1
	r := f.request("r1")
	f.exec(`UPDATE authserver.authorization_requests SET client_id = 'in-chain' WHERE id = $1`, r.ID)
	f.exec(`UPDATE authserver.clients SET created_at = now() - interval '60 days' WHERE id <> 'fresh'`)
	f.exec(`UPDATE authserver.clients SET used_at = now() - interval '31 days' WHERE id IN ('idle', 'client-1')`)
	f.exec(`UPDATE authserver.clients SET used_at = now() - interval '20 days' WHERE id = 'recent'`)
	swept, err := f.Sweep(t.Context(), policy)
	f.must(err)
	if swept.Clients != 2 {
		t.Errorf("%d registrations swept, want the unused and the idle one", swept.Clients)
	}
	for id, want := range map[string]bool{"fresh": true, "unused": false, "idle": false, "in-chain": true, "recent": true, "client-1": true} {
		if _, err := f.Client(t.Context(), id); (err == nil) != want {
			t.Errorf("%s: kept = %v, want %v (%v)", id, err == nil, want, err)
		}
	}
	if _, err := f.Client(t.Context(), "unused"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a swept client answers %v", err)
	}
}

func TestEveryReplicaSeesEachKeyThatStillVerifies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	one := store.SigningKey{KID: "one", JWK: []byte(`{"kid":"one"}`), MAC: []byte("mac")}
	two := store.SigningKey{KID: "two", JWK: []byte(`{"kid":"two"}`), MAC: []byte("mac")}
	_, err := f.PublishKeys(t.Context(), []store.SigningKey{one}, time.Hour)
	f.must(err)
	all, err := f.PublishKeys(t.Context(), []store.SigningKey{two}, time.Hour)
	f.must(err)
	if len(all) != 2 {
		t.Fatalf("%d keys, want both", len(all))
	}
	// A shorter promise does not take back a longer one.
	_, err = f.PublishKeys(t.Context(), []store.SigningKey{one, two}, time.Second)
	f.must(err)
	if n := f.count(`SELECT count(*) FROM authserver.signing_keys WHERE keep_until > now() + interval '59 minutes'`); n != 2 {
		t.Errorf("%d keys kept for an hour, want 2", n)
	}
	f.exec(`UPDATE authserver.signing_keys SET keep_until = now() WHERE kid = 'one'`)
	swept, err := f.Sweep(t.Context(), policy)
	f.must(err)
	all, err = f.PublishKeys(t.Context(), nil, time.Hour)
	f.must(err)
	if swept.Keys != 1 || len(all) != 1 || all[0].KID != "two" {
		t.Errorf("swept %d, left %+v", swept.Keys, all)
	}
}

func TestADatabaseThatIsDownIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.pool.Close()
	_, err := f.Client(t.Context(), "client-1")
	if kind := fault.KindOf(err); kind == fault.NotFound {
		t.Errorf("kind %v: a client would register again", kind)
	}
}
