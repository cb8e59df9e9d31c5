package upstream_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// Whoever registers a client can bring codes that are none; some providers answer them
// with a 500, or with 429 when they come often.
func TestCodesOfStrangersStopNobodyElse(t *testing.T) {
	t.Parallel()
	for name, junk := range map[string]http.HandlerFunc{
		"a server error": respond(500, "text/html", ""),
		"a rate limit":   respond(429, "application/json", `{"error":"invalid_grant"}`),
		"no answer":      raw(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op := startOctohub(t)
			p := build(t, octohub(op), plantedEnv())
			op.handle("/login/oauth/access_token", func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("grant_type") == "authorization_code" && r.FormValue("code") == "junk" {
					junk(w, r)
					return
				}
				respond(200, "application/json", `{"access_token":"a","token_type":"Bearer","refresh_token":"r"}`)(w, r)
			})
			req := redeemRequest()
			req.Code = secret.New("junk")
			for range 10 {
				if _, err := p.Redeem(t.Context(), req); err == nil {
					t.Fatal("a code that is none was redeemed")
				}
			}
			if _, err := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New(plantedRefresh), Subject: "alice-1"}); err != nil {
				t.Errorf("a person's tokens are not renewed: %v", err)
			}
			if _, err := p.Redeem(t.Context(), redeemRequest()); err != nil && name != "no answer" {
				t.Errorf("a person cannot log in: %v", err)
			}
		})
	}
}

func TestARateLimitIsNoOutage(t *testing.T) {
	t.Parallel()
	op := startOctohub(t)
	p := build(t, octohub(op), plantedEnv())
	var asked atomic.Int64
	op.handle("/login/oauth/access_token", func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) <= 10 {
			w.Header().Set("Retry-After", "7")
			respond(429, "application/json", `{"error":"invalid_grant"}`)(w, r)
			return
		}
		respond(200, "application/json", `{"access_token":"a","token_type":"Bearer","refresh_token":"r"}`)(w, r)
	})
	refresh := func() error {
		_, err := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New(plantedRefresh), Subject: "alice-1"})
		return err
	}
	for range 10 {
		if f := wantReason(t, refresh(), reason.UpstreamUnavailable); f.RetryAfter != 7*time.Second {
			t.Errorf("retry after %v, want what the provider said", f.RetryAfter)
		}
	}
	if err := refresh(); err != nil {
		t.Errorf("a provider that asked for fewer requests is taken for one that is down: %v", err)
	}
}
