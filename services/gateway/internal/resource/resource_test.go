package resource_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
	"chatelaine.dev/services/gateway/internal/resource"
)

const audience = "https://gw.example/mcp"

// sessions that have ended, by tsid.
type sessions map[string]bool

func (s sessions) Attach(ctx context.Context, c *caller.Caller) (context.Context, func(), error) {
	if s[c.SessionID] {
		return nil, nil, fault.New(fault.Unauthenticated, "the session has ended").WithReason("SESSION_ENDED")
	}
	return ctx, func() {}, nil
}

func deployment(issuer string) *config.Deployment {
	return &config.Deployment{
		Name: "demo", Mode: config.ModeAuthServer, Issuer: &config.TokenIssuer{URL: issuer}, Audience: audience,
		Scopes:   []string{"openid", "tools"},
		Backends: []config.Backend{{Name: "payroll", Resource: audience + "/payroll"}, {Name: "repos", Resource: audience + "/repos"}},
	}
}

type setup struct {
	issuer  *gatewaytest.Issuer
	handler http.Handler
}

func start(t *testing.T, change func(*resource.Config)) *setup {
	t.Helper()
	issuer := gatewaytest.NewIssuer(t)
	verifier, err := bearer.New(bearer.Config{
		Issuer: issuer.URL, JWKSURL: issuer.JWKSURL, Client: issuer.Client, Type: bearer.TypeAccessToken,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := resource.Config{Deployment: deployment(issuer.URL), Verifier: verifier, Sessions: sessions{"ended": true}}
	if change != nil {
		change(&cfg)
	}
	s, err := resource.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.Handle(mux)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := caller.FromContext(r.Context())
		if !ok {
			t.Error("no caller in the context")
		}
		io.WriteString(w, "hello "+c.Subject)
	})
	mux.Handle("/mcp", s.Protect("", answer))
	mux.Handle("/mcp/repos", s.Protect("repos", answer))
	return &setup{issuer, mux}
}

func (s *setup) do(method, path, token string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://gw.example"+path, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func TestEachResourceNamesItselfExactly(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for path, want := range map[string]string{
		"/.well-known/oauth-protected-resource":             audience,
		"/.well-known/oauth-protected-resource/mcp":         audience,
		"/.well-known/oauth-protected-resource/mcp/repos":   audience + "/repos",
		"/.well-known/oauth-protected-resource/mcp/payroll": audience + "/payroll",
	} {
		w := s.do(http.MethodGet, path, "", http.Header{"Origin": {"https://anywhere.example"}})
		var got struct {
			Resource string   `json:"resource"`
			Servers  []string `json:"authorization_servers"`
			Scopes   []string `json:"scopes_supported"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %v: %s", path, w.Code, err, w.Body)
		}
		if got.Resource != want || !cmp.Equal(got.Servers, []string{s.issuer.URL}) || !cmp.Equal(got.Scopes, []string{"openid", "tools"}) {
			t.Errorf("%s: %+v, want resource %s", path, got, want)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: browsers cannot read it", path)
		}
	}
	if w := s.do(http.MethodGet, "/.well-known/oauth-protected-resource/mcp/unknown", "", nil); w.Code != http.StatusNotFound {
		t.Errorf("unknown backend: %d, want 404", w.Code)
	}
}

func TestChallengeLeadsToTheMetadata(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for path, metadata := range map[string]string{
		"/mcp":       "https://gw.example/.well-known/oauth-protected-resource/mcp",
		"/mcp/repos": "https://gw.example/.well-known/oauth-protected-resource/mcp/repos",
	} {
		want := `Bearer resource_metadata="` + metadata + `", scope="openid tools"`
		w := s.do(http.MethodPost, path, "", nil)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != http.StatusUnauthorized || got != want {
			t.Errorf("%s without a token: %d %s\nwant %s", path, w.Code, got, want)
		}
		w = s.do(http.MethodPost, path, "nonsense", nil)
		want = `Bearer error="invalid_token", error_description="the access token is malformed", ` + strings.TrimPrefix(want, "Bearer ")
		if got := w.Header().Get("WWW-Authenticate"); w.Code != http.StatusUnauthorized || got != want {
			t.Errorf("%s with a bad one: %d %s\nwant %s", path, w.Code, got, want)
		}
	}
}

func TestTokenOpensItsResourceOnly(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	hour := time.Now().Add(-time.Hour).Unix()
	good := s.issuer.Token("alice", "live", audience, nil)
	other := gatewaytest.NewIssuer(t)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "."
	tests := map[string]struct {
		token       string
		mcp, atRepo int
	}{
		"for everything":          {good, 200, 200},
		"for one backend":         {s.issuer.Token("alice", "live", audience+"/repos", nil), 401, 200},
		"for another backend":     {s.issuer.Token("alice", "live", audience+"/payroll", nil), 401, 401},
		"for somebody else":       {s.issuer.Token("alice", "live", "https://other.example/mcp", nil), 401, 401},
		"for a longer path":       {s.issuer.Token("alice", "live", audience+"/repos/more", nil), 401, 401},
		"expired":                 {s.issuer.Token("alice", "live", audience, gatewaytest.Claims{"exp": hour}), 401, 401},
		"without expiry":          {s.issuer.Token("alice", "live", audience, gatewaytest.Claims{"exp": nil}), 401, 401},
		"of another issuer":       {s.issuer.Token("alice", "live", audience, gatewaytest.Claims{"iss": "https://evil"}), 401, 401},
		"signed by another":       {other.Token("alice", "live", audience, gatewaytest.Claims{"iss": s.issuer.URL}), 401, 401},
		"alg none":                {none, 401, 401},
		"signature cut off":       {parts[0] + "." + parts[1] + ".", 401, 401},
		"oversized":               {good + strings.Repeat("A", 32<<10), 401, 401},
		"of a session that ended": {s.issuer.Token("alice", "ended", audience, nil), 401, 401},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second time it is remembered
				for path, want := range map[string]int{"/mcp": tt.mcp, "/mcp/repos": tt.atRepo} {
					w := s.do(http.MethodPost, path, tt.token, nil)
					if w.Code != want {
						t.Errorf("%s: %d, want %d: %s", path, w.Code, want, w.Body)
					}
					if want == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), `error="invalid_token"`) {
						t.Errorf("%s: challenge %q", path, w.Header().Get("WWW-Authenticate"))
					}
				}
			}
		})
	}
}

func TestTokenWithoutARequiredScopeIsForbidden(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *resource.Config) { cfg.RequiredScopes = []string{"tools"} })
	w := s.do(http.MethodPost, "/mcp", s.issuer.Token("alice", "live", audience, nil), nil)
	if got := w.Header().Get("WWW-Authenticate"); w.Code != http.StatusForbidden ||
		!strings.Contains(got, `error="insufficient_scope", error_description="the access token lacks the scope tools"`) || !strings.Contains(got, `scope="openid tools"`) {
		t.Errorf("%d %s", w.Code, got)
	}
	if w := s.do(http.MethodPost, "/mcp", s.issuer.Token("alice", "live", audience, gatewaytest.Claims{"scope": "openid tools"}), nil); w.Code != http.StatusOK {
		t.Errorf("with the scope: %d", w.Code)
	}
}

func TestAScopeThatNobodyCanHaveIsNotRequired(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string]bool{"tools": true, "baseline": true, "offline_access": true, "openid": false, "tool": false} {
		d := deployment("https://as.example")
		d.Mode, d.Scopes = config.ModeAuthServer, []string{"tools"}
		d.AuthServer = &config.AuthServer{BaselineClientScopes: []string{"baseline"}}
		verifier, err := bearer.New(bearer.Config{Issuer: "https://as.example", JWKSURL: "https://as.example/jwks", Client: http.DefaultClient, Type: bearer.TypeAccessToken})
		if err != nil {
			t.Fatal(err)
		}
		_, err = resource.New(resource.Config{Deployment: d, Verifier: verifier, Sessions: sessions{}, RequiredScopes: []string{scope}})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), strconv.Quote(scope)) {
			t.Errorf("%s: %v", scope, err)
		}
	}
}

func TestTokensAreTakenFromTheHeaderAlone(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	good := s.issuer.Token("alice", "live", audience, nil)
	if w := s.do(http.MethodPost, "/mcp?access_token="+good, "", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("in the query: %d, want 401", w.Code)
	}
	if w := s.do(http.MethodPost, "/mcp", "", http.Header{"Authorization": {"Bearer " + good, "Bearer x"}}); w.Code != http.StatusBadRequest {
		t.Errorf("two headers: %d, want 400", w.Code)
	}
	if w := s.do(http.MethodPost, "/mcp", "", http.Header{"Authorization": {"bEaReR " + good}}); w.Code != http.StatusOK {
		t.Errorf("scheme in other case: %d, want 200", w.Code)
	}
	w := s.do(http.MethodPost, "/mcp", "", http.Header{"Authorization": {"Basic eA=="}})
	if w.Code != http.StatusUnauthorized || strings.Contains(w.Header().Get("WWW-Authenticate"), "error=") {
		t.Errorf("another scheme: %d %s, want 401 without an error code", w.Code, w.Header().Get("WWW-Authenticate"))
	}
}

func TestIssuerThatIsDownIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *resource.Config) {
		verifier, err := bearer.New(bearer.Config{Issuer: cfg.Deployment.Issuer.URL, JWKSURL: "http://127.0.0.1:1/", Client: &http.Client{}})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Verifier = verifier
	})
	w := s.do(http.MethodPost, "/mcp", s.issuer.Token("alice", "live", audience, nil), nil)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("%d %q, want 503 and no challenge", w.Code, w.Header().Get("WWW-Authenticate"))
	}
}

func TestPagesOfStrangersAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *resource.Config) {
		cfg.AllowedHosts = []string{"inside.example"}
		cfg.AllowedOrigins = []string{"https://App.example/"}
	})
	good := s.issuer.Token("alice", "live", audience, nil)
	for name, tt := range map[string]struct {
		header http.Header
		want   int
	}{
		"no origin":            {nil, 200},
		"our own":              {http.Header{"Origin": {"https://gw.example"}}, 200},
		"a local tool":         {http.Header{"Origin": {"http://localhost:6274"}}, 200},
		"allowed":              {http.Header{"Origin": {"https://app.example"}}, 200},
		"a stranger":           {http.Header{"Origin": {"https://evil.example"}}, 403},
		"looks like localhost": {http.Header{"Origin": {"https://localhost.evil.example"}}, 403},
		"null":                 {http.Header{"Origin": {"null"}}, 403},
		"two":                  {http.Header{"Origin": {"https://app.example", "https://evil.example"}}, 403},
		"rebound name":         {http.Header{"Host": {"evil.example"}}, 403},
		"rebound name, port":   {http.Header{"Host": {"evil.example:8000"}}, 403},
		"inside name":          {http.Header{"Host": {"inside.example:8000"}}, 200},
		"loopback":             {http.Header{"Host": {"[::1]:8000"}}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := s.do(http.MethodPost, "/mcp", good, tt.header)
			if w.Code != tt.want {
				t.Errorf("%d, want %d", w.Code, tt.want)
			}
			flag := "--allowed-origin"
			if tt.header.Get("Host") != "" {
				flag = "--allowed-host"
			}
			if tt.want == http.StatusForbidden && !strings.Contains(w.Body.String(), flag) {
				t.Errorf("%s: an operator is not told of %s", w.Body, flag)
			}
		})
	}
}

func TestPreflightIsAnsweredBeforeAuthentication(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	w := s.do(http.MethodOptions, "/mcp/repos", "", http.Header{
		"Origin": {"http://localhost:6274"}, "Access-Control-Request-Method": {"POST"},
		"Access-Control-Request-Headers": {"authorization, mcp-param-region, x-evil, mcp-param-bad name"},
	})
	if w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != "http://localhost:6274" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	allowed := strings.ToLower(w.Header().Get("Access-Control-Allow-Headers"))
	for _, name := range []string{
		"authorization", "content-type", "accept", "mcp-protocol-version", "mcp-method", "mcp-name",
		"mcp-session-id", "last-event-id", "mcp-param-region",
	} {
		if !strings.Contains(allowed, name) {
			t.Errorf("%s is not allowed: %s", name, allowed)
		}
	}
	if strings.Contains(allowed, "evil") || strings.Contains(allowed, "bad") {
		t.Errorf("allowed too much: %s", allowed)
	}
	w = s.do(http.MethodPost, "/mcp/repos", "", http.Header{"Origin": {"http://localhost:6274"}})
	if got := w.Header().Get("Access-Control-Expose-Headers"); !strings.Contains(got, "WWW-Authenticate") || !strings.Contains(got, "Mcp-Session-Id") {
		t.Errorf("a browser client cannot see the challenge: %q", got)
	}
}

func TestForeignIssuersSessionIsNotOurs(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *resource.Config) { cfg.Deployment.Mode = config.ModeExternalIssuer })
	// "ended" is a session of ours; in a foreign token the claim means nothing.
	if w := s.do(http.MethodPost, "/mcp", s.issuer.Token("alice", "ended", audience, nil), nil); w.Code != http.StatusOK {
		t.Errorf("%d, want 200", w.Code)
	}
}

func TestAnonymousDeploymentAsksForNoToken(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *resource.Config) {
		cfg.Verifier = nil
		cfg.Deployment = &config.Deployment{Mode: config.ModeAnonymous, Backends: []config.Backend{{Name: "repos"}}}
	})
	if w := s.do(http.MethodPost, "/mcp/repos", "", http.Header{"Host": {"localhost:8000"}}); w.Code != http.StatusOK {
		t.Errorf("%d, want 200", w.Code)
	}
	if w := s.do(http.MethodPost, "/mcp/repos", "", nil); w.Code != http.StatusForbidden {
		t.Errorf("by another name: %d, want 403", w.Code)
	}
	if w := s.do(http.MethodGet, "/.well-known/oauth-protected-resource", "", http.Header{"Host": {"localhost"}}); w.Code != http.StatusNotFound {
		t.Errorf("metadata: %d, want 404", w.Code)
	}
}
