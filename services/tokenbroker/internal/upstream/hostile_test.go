package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// Answers after which nobody knows what became of a code or refresh token. They
// must be told from a no, or a connection would be thrown away for an outage.
func hostileAnswers(t testing.TB) map[string]http.HandlerFunc {
	good := `"access_token":"` + plantedAccess + `","token_type":"Bearer"`
	return map[string]http.HandlerFunc{
		"garbage":                 respond(200, "application/json", plantedBody),
		"empty":                   respond(200, "application/json", ""),
		"HTML":                    respond(200, "text/html", "<html>"+plantedBody+"</html>"),
		"HTML error":              respond(403, "text/html", "<html>"+plantedBody+"</html>"),
		"error without a code":    respond(400, "application/json", `{"message":"`+plantedBody+`"}`),
		"not found":               respond(404, "text/plain", plantedBody),
		"server error":            respond(500, "application/json", `{"error":"invalid_grant"}`),
		"overloaded":              respond(503, "text/html", plantedBody),
		"rate limit":              respond(429, "application/json", `{"error":"invalid_grant"}`),
		"temporarily":             respond(400, "application/json", `{"error":"temporarily_unavailable"}`),
		"redirect":                redirect("/token2"),
		"redirect 307":            redirect307("/token2"),
		"oversize":                respond(200, "application/json", `{"pad":"`+strings.Repeat("x", 1<<20)+`",`+good+`}`),
		"deep":                    respond(200, "application/json", strings.Repeat(`{"a":`, 100)+"1"+strings.Repeat("}", 100)),
		"no access token":         respond(200, "application/json", `{"token_type":"Bearer"}`),
		"empty access token":      respond(200, "application/json", `{"access_token":""}`),
		"numeric access token":    respond(200, "application/json", `{"access_token":7}`),
		"line break in token":     respond(200, "application/json", `{"access_token":"a\r\nX-Evil: 1"}`),
		"space in token":          respond(200, "application/json", `{"access_token":"a b"}`),
		"endless token":           respond(200, "application/json", `{"access_token":"`+strings.Repeat("a", 20<<10)+`"}`),
		"access token twice":      respond(200, "application/json", `{`+good+`,"access_token":"another"}`),
		"other token type":        respond(200, "application/json", `{"access_token":"a","token_type":"DPoP"}`),
		"expiry as text":          respond(200, "application/json", `{`+good+`,"expires_in":"soon"}`),
		"negative expiry":         respond(200, "application/json", `{`+good+`,"expires_in":-1}`),
		"expiry beyond all":       respond(200, "application/json", `{`+good+`,"expires_in":1e300}`),
		"refresh token an object": respond(200, "application/json", `{`+good+`,"refresh_token":{}}`),
		"two values":              respond(200, "application/json", `{`+good+`}{}`),
		"a list":                  respond(200, "application/json", `[{`+good+`}]`),
		"not UTF-8":               respond(200, "application/json", "{"+good+",\"x\":\"\xff\"}"),
		"not HTTP":                raw(plantedBody + "\r\n\r\n"),
		"echoing status line":     raw("HTTP/1.1 " + plantedSecret + " OK\r\n\r\n"),
		"broken off":              raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
		"hang up":                 raw(""),
		"hang":                    hang(t),
		"hang in the body":        hangInBody(t),
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

func redirect307(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

// raw writes bytes to the connection and closes it.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.Close()
	}
}

func hangInBody(t testing.TB) http.HandlerFunc {
	wait := hang(t)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":`))
		_ = http.NewResponseController(w).Flush()
		wait(w, r)
	}
}

func TestHostileTokenAnswers(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, *upstream.Provider) error{
		"redeem": func(ctx context.Context, p *upstream.Provider) error {
			_, err := p.Redeem(ctx, redeemRequest())
			return err
		},
		"refresh": func(ctx context.Context, p *upstream.Provider) error {
			_, err := p.Refresh(ctx, upstream.RefreshRequest{RefreshToken: secret.New(plantedRefresh), Subject: "alice-1"})
			return err
		},
	}
	kinds := map[string]struct {
		provider func(*idp) config.Provider
		path     string
	}{
		"oidc":   {(*idp).provider, "/token"},
		"oauth2": {octohub, "/login/oauth/access_token"},
	}
	for name, handler := range hostileAnswers(t) {
		for kind, k := range kinds {
			for operation, call := range calls {
				t.Run(name+"/"+kind+"/"+operation, func(t *testing.T) {
					t.Parallel()
					i := startOctohub(t)
					i.handle(k.path, handler)
					r, err := upstream.NewRegistry(deployment(k.provider(i)), upstream.Config{
						Secrets: resolver(plantedEnv()), Timeout: 300 * time.Millisecond,
					})
					if err != nil {
						t.Fatal(err)
					}
					err = call(t.Context(), r.Providers()[0])
					f := wantReason(t, err, reason.UpstreamUnavailable)
					if f.Kind != fault.Unavailable || f.Metadata[upstream.MetadataSent] != "true" {
						t.Errorf("kind %v, metadata %v", f.Kind, f.Metadata)
					}
					if n := i.count(k.path); n != 1 {
						t.Errorf("the token endpoint was asked %d times", n)
					}
					if i.count("/token2") != 0 {
						t.Error("a redirect took our secrets along")
					}
				})
			}
		}
	}
}

func TestHostileUserInfo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"garbage":       {respond(200, "application/json", plantedBody), reason.UpstreamUnavailable},
		"HTML":          {respond(200, "text/html", plantedBody), reason.UpstreamUnavailable},
		"subject twice": {respond(200, "application/json", `{"id":1,"id":2}`), reason.UpstreamUnavailable},
		"redirect":      {redirect("/user2"), reason.UpstreamUnavailable},
		"down":          {respond(502, "text/html", plantedBody), reason.UpstreamUnavailable},
		"oversize":      {respond(200, "application/json", `{"id":1,"x":"`+strings.Repeat("x", 1<<20)+`"}`), reason.UpstreamUnavailable},
		"unauthorized":  {respond(401, "application/json", `{"message":"Bad credentials"}`), reason.UpstreamRefused},
		"forbidden":     {respond(403, "text/html", plantedBody), reason.UpstreamRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startOctohub(t)
			i.handle("/user", tt.handler)
			_, err := build(t, octohub(i), plantedEnv()).Redeem(t.Context(), redeemRequest())
			wantReason(t, err, tt.reason)
			if i.count("/user2") != 0 {
				t.Error("a redirect took the access token along")
			}
		})
	}
}

// A provider that is down must cost each call next to nothing, and be asked
// again soon.
func TestCircuitOpensAndCloses(t *testing.T) {
	t.Parallel()
	i := startOctohub(t)
	const path = "/login/oauth/access_token"
	i.handle(path, respond(500, "text/plain", ""))
	clock := &testClock{now: time.Now()}
	r, err := upstream.NewRegistry(deployment(octohub(i)), upstream.Config{Secrets: resolver(plantedEnv()), Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	p := r.Providers()[0]
	refresh := func() error {
		_, err := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New("r"), Subject: "1"})
		return err
	}
	for range 8 {
		wantReason(t, refresh(), reason.UpstreamUnavailable)
	}
	if n := i.count(path); n != 5 {
		t.Fatalf("%d requests to a provider that is down", n)
	}
	f := wantReason(t, refresh(), reason.UpstreamUnavailable)
	if f.Metadata[upstream.MetadataSent] != "false" || f.RetryAfter <= 0 {
		t.Errorf("open circuit: %v, retry after %v", f.Metadata, f.RetryAfter)
	}
	clock.advance(6 * time.Second)
	wantReason(t, refresh(), reason.UpstreamUnavailable) // the probe fails
	wantReason(t, refresh(), reason.UpstreamUnavailable) // and opens it again
	if n := i.count(path); n != 6 {
		t.Fatalf("%d requests after one probe", n)
	}
	clock.advance(6 * time.Second)
	i.handle(path, respond(200, "application/json", `{"access_token":"a"}`))
	for range 3 {
		if err := refresh(); err != nil {
			t.Fatal(fault.Detail(err))
		}
	}
}

// A certain no is an answer: people who type wrong passwords do not open the circuit.
func TestRefusalsKeepTheCircuitClosed(t *testing.T) {
	t.Parallel()
	i := startOctohub(t)
	i.handle("/login/oauth/access_token", respond(400, "application/json", `{"error":"invalid_grant"}`))
	p := build(t, octohub(i), plantedEnv())
	for range 20 {
		_, err := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New("r"), Subject: "1"})
		wantRefused(t, err, "invalid_grant")
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := startOctohub(t)
	cfg := octohub(i)
	cfg.OAuth2.TokenEndpoint = "http://" + l.Addr().String() + "/token"
	_ = l.Close()
	_, err = build(t, cfg, plantedEnv()).Redeem(t.Context(), redeemRequest())
	if f := wantReason(t, err, reason.UpstreamUnavailable); f.Metadata[upstream.MetadataSent] != "false" {
		t.Errorf("metadata %v: nothing was sent", f.Metadata)
	}
}

// Whatever a provider does, nothing that we sent and nothing that it sent may
// show in a log or an error.
func TestNoSecretInLogsOrErrors(t *testing.T) {
	t.Parallel()
	planted := []string{plantedCode, plantedAccess, plantedRefresh, plantedSecret, plantedBody, plantedEmail, testVerifier}
	var mu sync.Mutex
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	echo := func(w http.ResponseWriter, r *http.Request) { // all that was sent, as every part of an error
		_ = r.ParseForm()
		sent := fmt.Sprint(r.Header, r.PostForm, plantedBody)
		answer(w, 400, map[string]any{"error": sent, "error_description": sent, "error_uri": sent, sent: sent})
	}
	handlers := hostileAnswers(t)
	handlers["echo"] = echo
	handlers["good"] = nil
	check := func(what, text string) {
		for _, p := range planted {
			if strings.Contains(text, p) {
				t.Errorf("%s shows %s: %s", what, p, text)
			}
		}
	}
	var wg sync.WaitGroup
	for name, h := range handlers {
		for _, path := range []string{"/token", "/login/oauth/access_token", "/user", "/userinfo", "/keys", "/.well-known/openid-configuration", "/revoke"} {
			wg.Go(func() {
				i := startOctohub(t)
				if h != nil {
					i.handle(path, h)
				}
				override := i.provider()
				override.UserInfo = &config.UserInfoRequest{URL: i.url + "/userinfo", Method: "GET", SubjectFields: []string{"sub"}, NameFields: []string{"name"}, EmailFields: []string{"email"}}
				r, err := upstream.NewRegistry(deployment(octohub(i), i.provider(), override), upstream.Config{
					Secrets: resolver(plantedEnv()), Logger: logger, Timeout: 200 * time.Millisecond,
				})
				if err != nil {
					t.Error(err)
					return
				}
				for _, p := range r.Providers() {
					g, redeemErr := p.Redeem(t.Context(), redeemRequest())
					_, refreshErr := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New(plantedRefresh), Subject: "alice-1"})
					revokeErr := p.Revoke(t.Context(), secret.New(plantedRefresh), upstream.HintRefreshToken)
					check(name+" grant", fmt.Sprintf("%v %+v %#v", g.AccessToken, g.RefreshToken, g.IDToken))
					for _, err := range []error{redeemErr, refreshErr, revokeErr} {
						if err == nil {
							continue
						}
						check(name+" error", everything(err))
						logger.Error("failed", fault.Attr(err), slog.Any("raw", err), slog.String("detail", fault.Detail(err)))
					}
				}
			})
		}
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	check("the log", log.String())
	if log.Len() == 0 {
		t.Error("nothing was logged: the test looks at the wrong logger")
	}
}

// everything prints an error and all its causes, in all ways.
func everything(err error) string {
	var b strings.Builder
	for e := err; e != nil; e = errors.Unwrap(e) {
		fmt.Fprintf(&b, "%v|%+v|%s|%T\n", e, e, fault.Detail(e), e)
		if f, ok := e.(*fault.Error); ok { //nolint:errorlint // each one of the chain
			fmt.Fprintf(&b, "%v %v %v\n", f.Metadata, f.Fields, f.LogValue())
		}
	}
	return b.String()
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}
