package chain_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/authserver/internal/chain"
	"chatelaine.dev/services/authserver/internal/store"
)

// spent is the store of a login whose callback comes a second time: the first one is
// still being worked on until busy has passed.
type spent struct {
	chain.Requests // the rest is not called
	since          time.Time
	busy           time.Duration
	// ends is what the first one has led to.
	ends func(s *spent)

	request  store.AuthorizationRequest
	provider string
	gone     bool // the next leg has begun, or the login has ended
	retry    bool
	started  []string
	looks    int
}

func (s *spent) look() {
	s.looks++
	if time.Since(s.since) >= s.busy && s.ends != nil {
		s.ends(s)
		s.ends = nil
	}
}

func (s *spent) TakeLeg(context.Context, string, []string, []byte, time.Duration) (*store.Leg, *store.AuthorizationRequest, error) {
	return nil, nil, fault.New(fault.NotFound, "")
}

func (s *spent) SpentLeg(context.Context, string, []string, []byte) (*store.AuthorizationRequest, store.SpentLeg, error) {
	s.look()
	if s.gone {
		return nil, store.SpentLeg{}, fault.New(fault.NotFound, "")
	}
	req := s.request
	return &req, store.SpentLeg{Provider: s.provider, Retry: s.retry}, nil
}

func (s *spent) ReleaseLeg(context.Context, string) error { return nil }

func (s *spent) LegElsewhere(context.Context, string, []byte) (bool, error) { return false, nil }

func (s *spent) StartLeg(_ context.Context, _ string, leg store.Leg) error {
	s.started = append(s.started, leg.Provider)
	return nil
}

func (s *spent) Request(context.Context, string, []byte) (*store.AuthorizationRequest, error) {
	if s.request.ID == "" {
		return nil, fault.New(fault.NotFound, "")
	}
	req := s.request
	return &req, nil
}

func linked(s *spent) { s.request.Progress.Providers[0].State = store.LinkLinked }

func TestAReloadedCallbackGoesOnWhereTheLoginIs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		busy   time.Duration
		ends   func(s *spent)
		leg    string // that begins
		reason string
		waits  time.Duration
	}{
		"nothing came of it":                 {0, func(s *spent) { s.retry = true }, "corp", "", 0},
		"nothing comes of it":                {3 * time.Second, func(s *spent) { s.retry = true }, "corp", "", 3 * time.Second},
		"it was linked":                      {0, linked, "octohub", "", 0},
		"it is linked in a moment":           {2 * time.Second, linked, "octohub", "", 2 * time.Second},
		"the next leg begins in a moment":    {time.Second, func(s *spent) { linked(s); s.gone = true }, "octohub", "", time.Second},
		"the login ends in a moment":         {time.Second, func(s *spent) { s.gone, s.request.ID = true, "" }, "", chain.ReasonExpired, time.Second},
		"the login went on long ago":         {0, func(s *spent) { s.gone = true }, "", chain.ReasonState, 0},
		"it takes longer than anybody waits": {time.Minute, linked, "", chain.ReasonBusy, 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &spent{since: time.Now(), busy: tt.busy, ends: tt.ends, provider: "corp", request: store.AuthorizationRequest{
					ID: "r", Phase: store.PhaseLegs, Progress: store.Progress{Providers: []store.Provider{
						{Name: "corp", AuthorizationEndpoint: "https://corp.example/", State: store.LinkMissing},
						{Name: "octohub", AuthorizationEndpoint: "https://octohub.example/", State: store.LinkMissing},
					}},
				}}
				ring, err := keyring.New(secret.NewBytes(make([]byte, keyring.KeySize)))
				if err != nil {
					t.Fatal(err)
				}
				c := chain.New(chain.Config{Requests: s, Legs: s, Ring: ring, RedeemTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
				step, err := c.Return(t.Context(), chain.Callback{Providers: []string{"corp"}, State: "state", Code: "code"}, []byte("browser"))
				if waited := time.Since(s.since); waited < tt.busy && tt.reason != chain.ReasonBusy || waited > tt.waits+time.Second {
					t.Errorf("waited %v", waited)
				}
				if fault.ReasonOf(err) != tt.reason || (err == nil) != (tt.reason == "") {
					t.Fatalf("error %v, want reason %q", err, tt.reason)
				}
				if got := strings.Join(s.started, ","); got != tt.leg || (tt.leg != "" && !strings.HasPrefix(step.Redirect, "https://"+tt.leg+".example/")) {
					t.Errorf("legs %q began, redirect %q", got, step.Redirect)
				}
				if s.looks > 60 {
					t.Errorf("%d looks into the store", s.looks)
				}
			})
		})
	}
}

func TestAnAnswerToAQuestionThatWasNotAskedIssuesNoCode(t *testing.T) {
	t.Parallel()
	s := &spent{request: store.AuthorizationRequest{ID: "r", Phase: store.PhaseLegs, Progress: store.Progress{Providers: []store.Provider{
		{Name: "corp", AuthorizationEndpoint: "https://corp.example/", State: store.LinkMissing},
	}}}}
	ring, err := keyring.New(secret.NewBytes(make([]byte, keyring.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	c := chain.New(chain.Config{Requests: s, Legs: s, Ring: ring, Logger: slog.New(slog.DiscardHandler)}) // nothing that makes codes
	step, err := c.Confirm(t.Context(), "r", []byte("browser"), 0)
	if err != nil || !strings.HasPrefix(step.Redirect, "https://corp.example/") {
		t.Errorf("%+v, %v", step, err)
	}
}

// Somebody who reloads without end must not hold a request, and looks into the store,
// for each reload.
func TestOfManyReloadsOneWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &spent{since: time.Now(), busy: 3 * time.Second, ends: linked, provider: "corp", request: store.AuthorizationRequest{
			ID: "r", Phase: store.PhaseLegs, Progress: store.Progress{Providers: []store.Provider{
				{Name: "corp", AuthorizationEndpoint: "https://corp.example/", State: store.LinkMissing},
				{Name: "octohub", AuthorizationEndpoint: "https://octohub.example/", State: store.LinkMissing},
			}},
		}}
		ring, err := keyring.New(secret.NewBytes(make([]byte, keyring.KeySize)))
		if err != nil {
			t.Fatal(err)
		}
		c := chain.New(chain.Config{Requests: s, Legs: s, Ring: ring, RedeemTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
		const reloads = 5
		answers := make([]chan error, reloads)
		for i := range answers {
			answers[i] = make(chan error, 1)
			go func() {
				_, err := c.Return(t.Context(), chain.Callback{Providers: []string{"corp"}, State: "state", Code: "code"}, []byte("browser"))
				answers[i] <- err
			}()
			synctest.Wait()
		}
		for i, answer := range answers {
			switch err := <-answer; {
			case i < reloads-1 && (fault.ReasonOf(err) != chain.ReasonBusy || time.Since(s.since) > 0):
				t.Errorf("reload %d: %v after %v, want to be sent away at once", i, err, time.Since(s.since))
			case i == reloads-1 && err != nil:
				t.Errorf("the last reload: %v", err)
			}
		}
	})
}
