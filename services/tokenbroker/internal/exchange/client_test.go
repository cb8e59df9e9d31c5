package exchange_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

const (
	plantedSubject = "planted-subject-token-71c"
	plantedSecret  = "planted-sts-secret-71c"
	plantedBody    = "planted-sts-body-71c"
)

// sts is a token service that counts, and answers as it is told.
type sts struct {
	url      string
	requests atomic.Int64

	mu      sync.Mutex
	form    url.Values
	basic   string
	handler http.HandlerFunc
}

func startSTS(t testing.TB) *sts {
	t.Helper()
	s := &sts{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := s.requests.Add(1)
		_ = r.ParseForm()
		s.mu.Lock()
		s.form = r.PostForm
		s.basic, _, _ = r.BasicAuth()
		h := s.handler
		s.mu.Unlock()
		if h != nil {
			h(w, r)
			return
		}
		respond(200, grant(fmt.Sprintf("exchanged-%d", n), ""))(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL + "/oauth/token"
	return s
}

func (s *sts) answer(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

func respond(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// grant is a good answer, with more fields.
func grant(token, more string) string {
	return `{"access_token":"` + token + `","issued_token_type":"` + config.TokenTypeAccessToken + `","token_type":"Bearer"` + more + `}`
}

func (s *sts) strategy() *config.TokenExchangeStrategy {
	return &config.TokenExchangeStrategy{
		TokenURL: s.url, ClientID: "broker", ClientSecret: &secret.Ref{Name: "sts", Key: "client-secret"},
		Audience: "payroll", Scopes: []string{"payroll:read"}, SubjectTokenType: config.TokenTypeAccessToken,
		SubjectProvider: "corp", HeaderName: "Authorization",
	}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClient(t testing.TB, s *config.TokenExchangeStrategy, cache *exchange.Cache, clk *clock) *exchange.Client {
	t.Helper()
	c, err := exchange.New(s, exchange.Config{
		Name: "for-payroll", Cache: cache, Now: clk.Now, Timeout: 2 * time.Second,
		Secrets: &secret.Resolver{LookupEnv: func(name string) (string, bool) {
			return plantedSecret, name == "STS_CLIENT_SECRET"
		}},
	})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return c
}

func subject(connection string, version int64) exchange.Subject {
	return exchange.Subject{
		Key: exchange.ConnectionKey(connection), Version: version,
		Token: func(context.Context) (secret.String, error) { return secret.New(plantedSubject), nil },
	}
}

func get(t testing.TB, c *exchange.Client, s exchange.Subject) exchange.Token {
	t.Helper()
	token, err := c.Token(t.Context(), s)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return token
}

// A provider's token becomes one for the backend, at a token service that we did not write.
func TestExchangeAtARealTokenService(t *testing.T) {
	t.Parallel()
	op := optest.Start(t)
	secrets := &secret.Resolver{LookupEnv: func(string) (string, bool) { return optest.ClientSecret, true }}
	ref := &secret.Ref{Name: "corp", Key: "client-secret"}
	registry, err := upstream.NewRegistry(&config.Deployment{AuthServer: &config.AuthServer{Providers: []config.Provider{{
		Name: "corp", Type: config.ProviderOIDC, ClientID: optest.ClientID, ClientSecret: ref,
		RedirectURI: optest.RedirectURI, OIDC: &config.OIDCProvider{Issuer: op.Issuer, SubjectClaim: "sub"},
	}}}}, upstream.Config{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	verifier := strings.Repeat("v", 43)
	g, err := registry.Providers()[0].Redeem(t.Context(), upstream.RedeemRequest{
		Code: secret.New(op.Code(t, verifier, "n")), Verifier: secret.New(verifier), Nonce: "n",
	})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	tokens := map[string]secret.String{config.TokenTypeAccessToken: g.AccessToken, config.TokenTypeIDToken: g.IDToken}
	for tokenType, token := range tokens {
		t.Run(tokenType, func(t *testing.T) {
			t.Parallel()
			c, err := exchange.New(&config.TokenExchangeStrategy{
				TokenURL: op.Issuer + "/oauth/token", ClientID: optest.ClientID, ClientSecret: ref,
				Audience: "payroll", Scopes: []string{"profile"}, SubjectTokenType: tokenType, SubjectProvider: "corp",
			}, exchange.Config{Name: "for-payroll", Cache: exchange.NewCache(0, nil), Secrets: secrets})
			if err != nil {
				t.Fatal(err)
			}
			s := exchange.Subject{Key: exchange.ConnectionKey("1"), Version: 1, Token: func(context.Context) (secret.String, error) {
				return token, nil
			}}
			got := get(t, c, s)
			if got.AccessToken.IsZero() || got.AccessToken.Equal(token) || time.Until(got.ExpiresAt) < time.Minute {
				t.Errorf("got %v until %v", got.AccessToken.Equal(token), got.ExpiresAt)
			}
			s.Version = 2
			s.Token = func(context.Context) (secret.String, error) { return secret.New("not a token of yours"), nil }
			_, err = c.Token(t.Context(), s)
			if fault.ReasonOf(err) != reason.UpstreamRefused {
				t.Errorf("a foreign subject token: %v", err)
			}
		})
	}
}

func TestExchangeRequest(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	strategy := s.strategy()
	strategy.Parameters = map[string]string{"connector_id": "ldap", "subject_token": "mine"}
	get(t, newClient(t, strategy, exchange.NewCache(0, nil), newClock()), subject("c1", 1))
	want := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {plantedSubject},
		"subject_token_type": {config.TokenTypeAccessToken}, "requested_token_type": {config.TokenTypeAccessToken},
		"audience": {"payroll"}, "scope": {"payroll:read"}, "connector_id": {"ldap"},
	}
	if s.form.Encode() != want.Encode() || s.basic != "broker" {
		t.Errorf("sent %v by %q, want %v", s.form, s.basic, want)
	}
}

func TestExchangeFallsBackToFormAuthentication(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.PostForm.Get("client_secret") != plantedSecret {
			respond(401, `{"error":"invalid_client"}`)(w, r)
			return
		}
		respond(200, grant("x", ""))(w, r)
	})
	c := newClient(t, s.strategy(), exchange.NewCache(0, nil), newClock())
	get(t, c, subject("c1", 1))
	get(t, c, subject("c2", 1))
	if n := s.requests.Load(); n != 3 {
		t.Errorf("%d requests; the second exchange should know the way", n)
	}
}

// Nobody may get a token that was made for somebody else.
func TestExchangedTokensAreNeverShared(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	cache := exchange.NewCache(0, nil)
	clk := newClock()
	c := newClient(t, s.strategy(), cache, clk)
	other := s.strategy()
	other.Audience = "another"
	o := newClient(t, other, cache, clk)
	same := s.strategy()
	same.HeaderName = "X-Token" // how it is sent does not change what it is
	again := newClient(t, same, cache, clk)

	seen := map[string]string{}
	for name, token := range map[string]exchange.Token{
		"alice": get(t, c, subject("alice", 1)), "bob": get(t, c, subject("bob", 1)),
		"alice elsewhere":  get(t, o, subject("alice", 1)),
		"alice's new one":  get(t, c, subject("alice", 2)),
		"alice's caller A": get(t, c, exchange.Subject{Key: exchange.CallerKey(secret.New("A")), Token: subject("", 0).Token}),
		"alice's caller B": get(t, c, exchange.Subject{Key: exchange.CallerKey(secret.New("B")), Token: subject("", 0).Token}),
		"session":          get(t, c, exchange.Subject{Key: exchange.SessionKey("alice"), Token: subject("", 0).Token}),
	} {
		if before, dup := seen[token.AccessToken.Reveal()]; dup {
			t.Errorf("%s and %s have the same token", name, before)
		}
		seen[token.AccessToken.Reveal()] = name
	}
	if first := get(t, c, subject("bob", 1)); seen[first.AccessToken.Reveal()] != "bob" {
		t.Error("bob's token was not cached")
	}
	if shared := get(t, again, subject("bob", 1)); seen[shared.AccessToken.Reveal()] != "bob" {
		t.Error("an exchange of the same configuration was made again")
	}
}

func TestExchangeLifetimes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, more string
		notAfter   time.Duration
		want       time.Duration
	}{
		{"long", `,"expires_in":3600`, 0, 3600*time.Second - 30*time.Second},
		{"short", `,"expires_in":100`, 0, 90 * time.Second},
		{"unsaid", ``, 0, 54 * time.Second},
		{"null", `,"expires_in":null`, 0, 54 * time.Second},
		{"endless", `,"expires_in":1e12`, 0, 24*time.Hour - 30*time.Second},
		{"bounded by the subject", `,"expires_in":3600`, 5 * time.Minute, 5 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startSTS(t)
			s.answer(respond(200, grant("x", tt.more)))
			clk := newClock()
			c := newClient(t, s.strategy(), exchange.NewCache(0, clk.Now), clk)
			sub := subject("c", 1)
			if tt.notAfter != 0 {
				sub.NotAfter = clk.Now().Add(tt.notAfter)
			}
			if got := get(t, c, sub).ExpiresAt.Sub(clk.Now()); got != tt.want {
				t.Errorf("lives for %v, want %v", got, tt.want)
			}
			clk.advance(tt.want - time.Millisecond)
			get(t, c, sub)
			if n := s.requests.Load(); n != 1 {
				t.Errorf("%d requests before the end", n)
			}
			clk.advance(time.Millisecond)
			_, _ = c.Token(t.Context(), sub)
			if n := s.requests.Load(); n != 2 {
				t.Errorf("%d requests after the end", n)
			}
		})
	}
}

func TestOneExchangeForAllCallers(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	release := make(chan struct{})
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		<-release
		respond(200, grant("x", ""))(w, r)
	})
	c := newClient(t, s.strategy(), exchange.NewCache(0, nil), newClock())
	gone, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := c.Token(gone, subject("c", 1)); first <- err }()
	waitFor(t, func() bool { return s.requests.Load() == 1 })
	leave() // the one that began it goes away
	if err := <-first; fault.ReasonOf(err) != reason.UpstreamUnavailable || fault.KindOf(err) != fault.Canceled {
		t.Errorf("the caller that left: %v", err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := c.Token(t.Context(), subject("c", 1)); err != nil {
				t.Error(fault.Detail(err))
			}
		})
	}
	close(release)
	wg.Wait()
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d exchanges", n)
	}
}

// All sessions of a person share the exchanges of a connection. One that ends in the
// middle of one must not take the others along.
func TestTheEndOfOneSessionIsNotTheAnswerToAnother(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.PostForm.Get("subject_token") == "renewed" {
			respond(200, grant("x", ""))(w, r)
			return
		}
		respond(400, `{"error":"invalid_token"}`)(w, r)
	})
	c := newClient(t, s.strategy(), exchange.NewCache(0, nil), newClock())
	renewing, release := make(chan struct{}), make(chan struct{})
	ended := fault.New(fault.Precondition, "").WithReason(reason.SessionEnded)
	dying := subject("c", 1)
	dying.Renew = func(context.Context) (exchange.Subject, bool, error) {
		close(renewing)
		<-release
		return exchange.Subject{}, false, exchange.OfCaller(ended)
	}
	fresh := subject("c", 2)
	fresh.Token = func(context.Context) (secret.String, error) { return secret.New("renewed"), nil }
	living := subject("c", 1)
	living.Renew = func(context.Context) (exchange.Subject, bool, error) { return fresh, true, nil }

	first := make(chan error, 1)
	go func() { _, err := c.Token(t.Context(), dying); first <- err }()
	<-renewing
	var wg sync.WaitGroup
	var waiting atomic.Int32
	for range 10 {
		wg.Go(func() {
			waiting.Add(1)
			if token, err := c.Token(t.Context(), living); err != nil || token.Version != 2 {
				t.Errorf("a session that lives: version %d, %v", token.Version, err)
			}
		})
	}
	waitFor(t, func() bool { return waiting.Load() == 10 })
	close(release)
	wg.Wait()
	if err := <-first; fault.ReasonOf(err) != reason.SessionEnded {
		t.Errorf("the session that ended: %v", err)
	}
}

func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("waited for nothing")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestHostileTokenService(t *testing.T) {
	t.Parallel()
	access := `"access_token":"x","token_type":"Bearer"`
	issued := `"issued_token_type":"` + config.TokenTypeAccessToken + `"`
	tests := map[string]struct {
		h      http.HandlerFunc
		reason string
	}{
		"garbage":           {respond(200, plantedBody), reason.UpstreamUnavailable},
		"HTML error":        {respond(502, "<html>"+plantedBody), reason.UpstreamUnavailable},
		"no OAuth error":    {respond(400, `{"message":"`+plantedBody+`"}`), reason.UpstreamUnavailable},
		"oversize":          {respond(200, `{"x":"`+strings.Repeat("x", 1<<20)+`"}`), reason.UpstreamUnavailable},
		"redirect":          {http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect).ServeHTTP, reason.UpstreamUnavailable},
		"no token":          {respond(200, `{`+issued+`,"token_type":"Bearer"}`), reason.UpstreamUnavailable},
		"line break":        {respond(200, grant(`a\r\nb`, "")), reason.UpstreamUnavailable},
		"token twice":       {respond(200, grant("x", `,"access_token":"y"`)), reason.UpstreamUnavailable},
		"no issued type":    {respond(200, `{`+access+`}`), reason.UpstreamUnavailable},
		"refresh token":     {respond(200, `{`+access+`,"issued_token_type":"urn:ietf:params:oauth:token-type:refresh_token"}`), reason.UpstreamUnavailable},
		"no token type":     {respond(200, `{"access_token":"x",`+issued+`}`), reason.UpstreamUnavailable},
		"opens nothing":     {respond(200, `{"access_token":"x","token_type":"N_A",`+issued+`}`), reason.UpstreamUnavailable},
		"expiry as text":    {respond(200, grant("x", `,"expires_in":"soon"`)), reason.UpstreamUnavailable},
		"expired already":   {respond(200, grant("x", `,"expires_in":-5`)), reason.UpstreamUnavailable},
		"target":            {respond(400, `{"error":"invalid_target","error_description":"`+plantedBody+`"}`), reason.UpstreamRefused},
		"error with a 200":  {respond(200, `{"error":"`+plantedBody+`"}`), reason.UpstreamRefused},
		"temporarily":       {respond(400, `{"error":"temporarily_unavailable"}`), reason.UpstreamUnavailable},
		"hangs":             {hang, reason.UpstreamUnavailable},
		"echoes everything": {echo, reason.UpstreamRefused},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSTS(t)
			s.answer(tt.h)
			c := newClient(t, s.strategy(), exchange.NewCache(0, nil), newClock())
			_, err := c.Token(t.Context(), subject("c", 1))
			f, ok := fault.As(err)
			if !ok || f.Reason != tt.reason || f.Metadata[reason.Provider] != "corp" {
				t.Fatalf("error %v, %v", err, f)
			}
			for _, planted := range []string{plantedSubject, plantedSecret, plantedBody} {
				if text := fmt.Sprintf("%v %+v %s %v %v", err, err, fault.Detail(err), f.Metadata, f.LogValue()); strings.Contains(text, planted) {
					t.Errorf("the error shows %s: %s", planted, text)
				}
			}
		})
	}
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func echo(w http.ResponseWriter, r *http.Request) {
	all, _ := json.Marshal(fmt.Sprint(r.PostForm, r.Header))
	respond(400, `{"error":`+string(all)+`,"error_description":`+string(all)+`}`)(w, r)
}

func TestMissingSecretIsReadableAtStart(t *testing.T) {
	t.Parallel()
	_, err := exchange.New((&sts{}).strategy(), exchange.Config{
		Name: "for-payroll", Cache: exchange.NewCache(0, nil), Secrets: &secret.Resolver{},
	})
	if err == nil || !strings.Contains(err.Error(), "for-payroll") || !strings.Contains(err.Error(), "STS_CLIENT_SECRET") {
		t.Errorf("%v", err)
	}
}
