package revoke_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/revoke"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

type world struct {
	mu      sync.Mutex
	revoked []string
	inUse   map[string]bool // by subject
	has     map[string]bool // users who have another account in the realm
	broken  error
}

func (w *world) Revoke(_ context.Context, token secret.String, hint upstream.TokenHint) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked = append(w.revoked, string(hint)+" "+token.Reveal())
	return w.broken
}

func (w *world) RealmInUse(_ context.Context, userID string, a store.Account) (bool, error) {
	return w.inUse[a.Subject] || w.has[userID], nil
}

func newRevoker(t *testing.T, w *world) (r *revoke.Revoker, request func(subject string, tokens seal.Tokens) revoke.Request) {
	t.Helper()
	keys, err := seal.NewFileKeys(secret.NewBytes(make([]byte, seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	sealer := seal.NewSealer(keys)
	r = revoke.New(revoke.Config{
		Find:        func(string, string) (revoke.Provider, error) { return w, nil },
		Connections: w, Opener: sealer, Logger: slog.New(slog.DiscardHandler),
	})
	return r, func(subject string, tokens seal.Tokens) revoke.Request {
		at := store.StagedPlace("leg_" + subject)
		sealed, err := sealer.SealTokens(t.Context(), tokens, at)
		if err != nil {
			t.Fatal(err)
		}
		return revoke.Request{UserID: "u", Provider: "hub", Account: store.Account{Realm: "r", Subject: subject}, Sealed: sealed, Place: at}
	}
}

// drain runs the revoker until its queue is empty.
func drain(t *testing.T, r *revoke.Revoker) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestTheRefreshTokenIsGivenBackWhereThereIsOne(t *testing.T) {
	t.Parallel()
	w := &world{}
	r, request := newRevoker(t, w)
	r.Add(request("a", seal.Tokens{AccessToken: secret.New("at"), RefreshToken: secret.New("rt")}))
	r.Add(request("b", seal.Tokens{AccessToken: secret.New("at-alone")}))
	r.Add(revoke.Request{}) // erased before: nothing to give back
	drain(t, r)
	slices.Sort(w.revoked)
	if !slices.Equal(w.revoked, []string{"access_token at-alone", "refresh_token rt"}) {
		t.Errorf("revoked %v", w.revoked)
	}
}

func TestAGrantThatIsInUseIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := &world{inUse: map[string]bool{"a": true}}
	r, request := newRevoker(t, w)
	r.Add(request("a", seal.Tokens{AccessToken: secret.New("at")}))
	drain(t, r)
	if len(w.revoked) != 0 {
		t.Errorf("revoked %v: the person's live connection may have gone with it", w.revoked)
	}
}

// Someone who disconnects one of two accounts wants it gone at the provider too; a
// login that came to nothing must not take the other account along.
func TestASecondAccountSparesAFailedLoginOnly(t *testing.T) {
	t.Parallel()
	keys, err := seal.NewFileKeys(secret.NewBytes(make([]byte, seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	sealer := seal.NewSealer(keys)
	sealed := func(text string, at seal.Place) seal.Sealed {
		s, err := sealer.SealTokens(t.Context(), seal.Tokens{AccessToken: secret.New(text)}, at)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w := &world{has: map[string]bool{"u": true}}
	r, _ := newRevoker(t, w)
	account := store.Account{Realm: "r", Subject: "first"}
	leg := store.StagedLeg{ID: "leg", Provider: "hub", Account: account}
	leg.Sealed = sealed("failed login", leg.Place())
	r.Add(revoke.OfLeg("u", &leg))
	c := store.Connection{ID: "con", UserID: "u", Provider: "hub", Account: account, Version: 3}
	c.Sealed = sealed("disconnected", c.Place())
	r.Add(revoke.OfConnection(&c))
	drain(t, r)
	if !slices.Equal(w.revoked, []string{"access_token disconnected"}) {
		t.Errorf("revoked %v", w.revoked)
	}
}

func TestAFloodNeitherBlocksNorGrows(t *testing.T) {
	t.Parallel()
	w := &world{broken: errors.New("provider is down")}
	r, request := newRevoker(t, w)
	req := request("a", seal.Tokens{AccessToken: secret.New("at")})
	for range 10_000 {
		r.Add(req) // returns at once, with nobody at work
	}
	drain(t, r)
	if n := len(w.revoked); n == 0 || n > 600 {
		t.Errorf("%d revocations were queued", n)
	}
}
