package exchange_test

import (
	"context"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// actedSubject is what a client does for a connection.
func actedSubject(connection, client string) exchange.Subject {
	s := subject(connection, 1)
	s.Key = exchange.ActedBy(s.Key, client)
	s.Actor = func(context.Context) (secret.String, error) { return secret.New("actor-" + client), nil }
	return s
}

// A token says which client acts: another client never gets it, and it goes with its subject.
func TestActorTokens(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	strategy := s.strategy()
	strategy.MintActor = true
	cache := exchange.NewCache(0, nil)
	c := newClient(t, strategy, cache, newClock())
	one := get(t, c, actedSubject("alice", "c1"))
	if s.form.Get("actor_token") != "actor-c1" || s.form.Get("actor_token_type") != config.TokenTypeJWT || s.form.Get("subject_token") != plantedSubject {
		t.Errorf("sent %v", s.form)
	}
	if two := get(t, c, actedSubject("alice", "c2")); two.AccessToken.Equal(one.AccessToken) || s.form.Get("actor_token") != "actor-c2" {
		t.Error("what one client acts with is another's")
	}
	if !get(t, c, actedSubject("alice", "c1")).AccessToken.Equal(one.AccessToken) {
		t.Error("it is made anew for each call")
	}
	if got := c.Reject(actedSubject("alice", "c1").Key, 1, one.Generation); got != exchange.Dropped {
		t.Errorf("its rejection: %v", got)
	}
	two := get(t, c, actedSubject("alice", "c2"))
	cache.Forget(exchange.ConnectionKey("alice"), 1)
	if get(t, c, actedSubject("alice", "c2")).AccessToken.Equal(two.AccessToken) {
		t.Error("a token of a connection that changed is still served")
	}
}

func TestWithoutAnActorTokenNothingIsAsked(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	c := newClient(t, s.strategy(), exchange.NewCache(0, nil), newClock())
	acted := actedSubject("alice", "c1")
	down := fault.New(fault.Unavailable, "").WithReason(reason.UpstreamUnavailable)
	acted.Actor = func(context.Context) (secret.String, error) { return secret.String{}, down }
	if _, err := c.Token(t.Context(), acted); fault.ReasonOf(err) != reason.UpstreamUnavailable || s.requests.Load() != 0 {
		t.Errorf("%v, %d requests", err, s.requests.Load())
	}
}
