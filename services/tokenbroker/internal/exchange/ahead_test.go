package exchange_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
)

const aHundredMinutes = `,"expires_in":6030` // with the margin, 6000 s are used

// In the last fifth of a token's life the next one is made, once, and nobody waits for it.
func TestTokensAreReplacedAheadOfTheirEnd(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	s.answer(respond(200, grant("first", aHundredMinutes)))
	clk := newClock()
	c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
	first := get(t, c, subject("c", 1))
	if ask := first.AskAgainAt(clk.Now()).Sub(clk.Now()); ask < 4800*time.Second || ask > 5400*time.Second {
		t.Errorf("holders ask again after %v", ask)
	}
	clk.advance(4799 * time.Second)
	get(t, c, subject("c", 1))
	if n := s.requests.Load(); n != 1 {
		t.Fatalf("%d requests in the first four fifths", n)
	}
	clk.advance(602 * time.Second) // past any jitter
	if !first.AskAgainAt(clk.Now()).Equal(first.ExpiresAt) {
		t.Error("holders ask all the time")
	}
	release := make(chan struct{})
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		<-release
		respond(200, grant("second", aHundredMinutes))(w, r)
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if token, err := c.Token(t.Context(), subject("c", 1)); err != nil || token.AccessToken.Reveal() != "first" {
				t.Errorf("%v: %v", err, token.Generation)
			}
		})
	}
	wg.Wait() // the service has not answered
	close(release)
	waitFor(t, func() bool { return get(t, c, subject("c", 1)).AccessToken.Reveal() == "second" })
	clk.advance(1000 * time.Second) // the first one has ended
	get(t, c, subject("c", 1))
	if n := s.requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// A token service that fails meanwhile costs nothing while the last token is good, and
// is not hammered.
func TestATokenThatCannotBeReplacedStaysGood(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	s.answer(respond(200, grant("first", aHundredMinutes)))
	clk := newClock()
	c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
	get(t, c, subject("c", 1))
	s.answer(respond(400, `{"error":"invalid_target"}`))
	clk.advance(5401 * time.Second)
	get(t, c, subject("c", 1))
	waitFor(t, func() bool { return s.requests.Load() == 2 })
	for range 50_000 { // longer than a try takes
		get(t, c, subject("c", 1))
	}
	if n := s.requests.Load(); n != 2 {
		t.Errorf("%d requests, one after another", n)
	}
	for range 59 { // ten seconds each, up to its end
		for range 5 {
			if token := get(t, c, subject("c", 1)); token.AccessToken.Reveal() != "first" {
				t.Fatal("another token is served")
			}
		}
		clk.advance(10 * time.Second)
	}
	waitFor(t, func() bool { return s.requests.Load() > 1 })
	if n := s.requests.Load(); n > 14 {
		t.Errorf("%d requests", n)
	}
	clk.advance(time.Minute)
	if _, err := c.Token(t.Context(), subject("c", 1)); fault.KindOf(err) != fault.Precondition {
		t.Errorf("after its end: %v", err)
	}
}

// What ends with the caller's own token is not made anew: it could not live longer.
func TestATokenBoundedByItsSubjectIsNotReplacedAhead(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	s.answer(respond(200, grant("x", aHundredMinutes)))
	clk := newClock()
	c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
	sub := subject("c", 1)
	sub.NotAfter = clk.Now().Add(1000 * time.Second)
	token := get(t, c, sub)
	if !token.AskAgainAt(clk.Now()).Equal(sub.NotAfter) {
		t.Error("holders are told to ask before its end")
	}
	clk.advance(999 * time.Second)
	for range 3 {
		get(t, c, sub)
	}
	clk.advance(time.Second)
	get(t, c, exchange.Subject{Key: sub.Key, Version: 1, Token: sub.Token}) // waits for whatever is under way
	if n := s.requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}
