package store_test

import (
	"bytes"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

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
	f.exec(`UPDATE authserver.refresh_tokens SET sealed_answer = 'kept' WHERE used_at IS NOT NULL`)
	if tok := token("rt-g1"); tok.Replaceable || tok.SealedAnswer != nil {
		t.Errorf("once the successor was used, with an answer that was not erased: %+v", tok)
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

func TestALoginCannotFillTheTableWithItsTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.active("g1")
	f.active("other")
	previous := "rt-g1"
	rotate := func(next string) error {
		r := rotation(previous, next)
		r.Burst = 3
		err := f.RotateRefreshToken(t.Context(), "g1", r)
		if err == nil {
			previous = next
		}
		return err
	}
	for _, next := range []string{"rt-1", "rt-2", "rt-3"} {
		f.must(rotate(next))
	}
	err := rotate("rt-4")
	if fault.KindOf(err) != fault.Exhausted || fault.ReasonOf(err) != store.ReasonRotatedTooOften || fault.From(err).RetryAfter != time.Minute {
		t.Errorf("the fourth at once: %v", err)
	}
	if tok, _, err := f.RefreshToken(t.Context(), "rt-3", time.Minute); err != nil || tok.Used {
		t.Errorf("the token was spent: %+v, %v", tok, err)
	}
	f.must(f.RotateRefreshToken(t.Context(), "other", rotation("rt-other", "rt-other-2")))
	f.exec(`UPDATE authserver.grants SET created_at = now() - interval '61 seconds'`)
	f.must(rotate("rt-4"))
	if err := rotate("rt-5"); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("two after a minute: %v", err)
	}
}
