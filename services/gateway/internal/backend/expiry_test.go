package backend

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/caller"
)

func expiring(at time.Time) *caller.Caller {
	return caller.New(caller.Claims{Issuer: "i", Subject: "alice", ExpiresAt: at}, secret.New("t"))
}

func TestAnAnswerEndsWithTheTokenOrShortlyAfter(t *testing.T) {
	t.Parallel()
	events := &http.Response{Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}}
	whole := &http.Response{Header: http.Header{"Content-Type": {"application/json"}}}
	for name, tt := range map[string]struct {
		resp    *http.Response
		expires time.Duration
		want    time.Duration
	}{
		"a stream":          {events, time.Hour, time.Hour + bearer.DefaultLeeway},
		"a stream too late": {events, -time.Hour, bearer.DefaultLeeway - time.Hour},
		"a whole":           {whole, time.Hour, time.Hour + bearer.DefaultLeeway},
		"a whole too late":  {whole, -time.Hour, lateAnswer}, // the backend has acted
	} {
		got := left(expiring(time.Now().Add(tt.expires)), tt.resp)
		if got > tt.want || got < tt.want-time.Minute/2 {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestAStreamEndsForAReasonOfOurs(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	entry := entryFor(s.URL)
	c := newClient(t, entry, &fakeCredentials{}, nil)
	read := func(who *caller.Caller, interrupt error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		resp, err := c.Do(ctx, who, &entry, &Request{Method: http.MethodPost})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if interrupt != nil {
			Interrupt(resp, interrupt)
		}
		_, err = io.ReadAll(resp.Body)
		return err
	}
	if err := read(expiring(time.Now().Add(500*time.Millisecond-bearer.DefaultLeeway)), nil); fault.ReasonOf(err) != ReasonTokenExpired {
		t.Errorf("when the token ends: %v", err)
	}
	stop := fault.New(fault.Unavailable, "stop").WithReason("STOP")
	if err := read(caller.AnonymousCaller(), stop); !errors.Is(err, stop) {
		t.Errorf("when it is interrupted: %v", err)
	}
}
