package exchange_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

func TestForgottenSubjectsAreExchangedAnew(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	cache := exchange.NewCache(0, nil)
	c := newClient(t, s.strategy(), cache, newClock())
	alice, bob := get(t, c, subject("alice", 1)), get(t, c, subject("bob", 1))
	cache.Forget(exchange.ConnectionKey("alice"), 1)
	if get(t, c, subject("alice", 1)).AccessToken.Equal(alice.AccessToken) {
		t.Error("a token of a connection that changed is still served")
	}
	if !get(t, c, subject("bob", 1)).AccessToken.Equal(bob.AccessToken) {
		t.Error("somebody else's token was forgotten too")
	}
}

// A renewal is heard of after its tokens were read: were what was made of them dropped
// then, each replica would exchange twice after each renewal.
func TestNewsOfWhatIsKnownAlreadyCostNoExchange(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	cache := exchange.NewCache(0, nil)
	c := newClient(t, s.strategy(), cache, newClock())
	alice := subject("alice", 2)
	alice.Position = 7 // read after the renewal, whose event this is
	first := get(t, c, alice)
	cache.Forget(alice.Key, 7)
	if !get(t, c, alice).AccessToken.Equal(first.AccessToken) || s.requests.Load() != 1 {
		t.Errorf("%d exchanges for one version, want 1", s.requests.Load())
	}
	cache.Forget(alice.Key, 8)
	if get(t, c, alice).AccessToken.Equal(first.AccessToken) {
		t.Error("a token of a connection that has changed since is still served")
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	c := newClient(t, s.strategy(), exchange.NewCache(2, nil), newClock())
	for _, name := range []string{"a", "b", "a", "c", "a", "b"} { // c puts b out
		get(t, c, subject(name, 1))
	}
	if n := s.requests.Load(); n != 4 {
		t.Errorf("%d exchanges, want 4", n)
	}
}

// A backend's 401 drops the exchanged token once, and only then costs the subject.
func TestRejectedTokens(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	clk := newClock()
	c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
	replica := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
	k := exchange.ConnectionKey("c")
	want := func(step string, c *exchange.Client, g exchange.Generation, version int64, want exchange.Rejection) {
		t.Helper()
		if got := c.Reject(k, version, g); got != want {
			t.Fatalf("%s: %v, want %v", step, got, want)
		}
	}
	one := get(t, c, subject("c", 1))
	want("the first rejection", c, one.Generation, 1, exchange.Dropped)
	want("told twice", c, one.Generation, 1, exchange.Stale)
	two := get(t, c, subject("c", 1))
	if two.AccessToken.Equal(one.AccessToken) || two.Generation.Rejections != 1 {
		t.Fatalf("after the rejection: generation %+v", two.Generation)
	}
	want("an older token", c, one.Generation, 1, exchange.Stale)
	want("the second in a row", c, two.Generation, 1, exchange.Spent)
	want("on another replica", replica, two.Generation, 1, exchange.Spent)

	three := get(t, c, subject("c", 2)) // the subject was renewed
	if three.Generation.Rejections != 0 {
		t.Errorf("a renewed subject starts with generation %+v", three.Generation)
	}
	want("a token of the old subject", c, two.Generation, 1, exchange.Stale)
	want("a first rejection on another replica", replica, three.Generation, 2, exchange.Dropped)
	want("the same on this one", c, three.Generation, 2, exchange.Dropped)
	four := get(t, c, subject("c", 2))
	clk.advance(2 * time.Minute)
	want("much later", c, get(t, c, subject("c", 2)).Generation, 2, exchange.Dropped)
	_ = four
}

func TestSubjectIsRenewedOnceWhenTheServiceDoesNotAcceptIt(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"invalid_request", "invalid_grant", "invalid_token"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := startSTS(t)
			s.answer(func(w http.ResponseWriter, r *http.Request) {
				if r.PostForm.Get("subject_token") == "renewed" {
					respond(200, grant("x", ""))(w, r)
					return
				}
				respond(400, `{"error":"`+code+`"}`)(w, r)
			})
			clk := newClock()
			c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
			sub := subject("c", 1)
			renewals := 0
			fresh := subject("c", 2)
			fresh.Token = func(context.Context) (secret.String, error) { return secret.New("renewed"), nil }
			sub.Renew = func(context.Context) (exchange.Subject, bool, error) { renewals++; return fresh, true, nil }
			if got := get(t, c, sub); got.Version != 2 {
				t.Errorf("version %d", got.Version)
			}
			get(t, c, fresh)
			if renewals != 1 || s.requests.Load() != 2 {
				t.Errorf("%d renewals, %d requests", renewals, s.requests.Load())
			}
		})
	}
	t.Run("and no more, when that does not help", func(t *testing.T) {
		t.Parallel()
		s := startSTS(t)
		s.answer(respond(400, `{"error":"invalid_request"}`))
		clk := newClock()
		c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
		renewals := 0
		fresh := subject("c", 2)
		sub := subject("c", 1)
		sub.Renew = func(context.Context) (exchange.Subject, bool, error) { renewals++; return fresh, true, nil }
		fresh.Renew = sub.Renew
		for range 3 {
			_, err := c.Token(t.Context(), sub)
			if fault.ReasonOf(err) != reason.UpstreamRefused {
				t.Fatal(err)
			}
			sub = fresh
		}
		if renewals != 1 || s.requests.Load() != 2 {
			t.Errorf("%d renewals, %d requests", renewals, s.requests.Load())
		}
		clk.advance(6 * time.Second)
		_, _ = c.Token(t.Context(), fresh)
		if s.requests.Load() < 3 {
			t.Error("a refusal is remembered for ever")
		}
	})
	t.Run("the provider's own no is the answer", func(t *testing.T) {
		t.Parallel()
		s := startSTS(t)
		s.answer(respond(400, `{"error":"invalid_grant"}`))
		c := newClient(t, s.strategy(), exchange.NewCache(0, nil), newClock())
		sub := subject("c", 1)
		dead := fault.New(fault.Precondition, "").WithReason(reason.ReauthenticationRequired)
		sub.Renew = func(context.Context) (exchange.Subject, bool, error) { return exchange.Subject{}, false, dead }
		if _, err := c.Token(t.Context(), sub); !errors.Is(err, dead) {
			t.Errorf("%v", err)
		}
	})
}
