package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// get fetches a URL without following redirects.
func get(t *testing.T, target string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// changed returns the authorization request with parameters replaced; an empty
// value removes one.
func changed(t *testing.T, r journey.Request, pairs ...string) string {
	t.Helper()
	u := mustParse(t, r.URL)
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		if q.Del(pairs[i]); pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func TestAuthorizeRefusesBeforeAnythingHappens(t *testing.T) {
	t.Parallel()
	client := newClient(t)
	r := client.Authorize()
	begun := func() (n int) {
		query(t, `SELECT count(*) FROM authserver.authorization_requests WHERE client_id = $1`, []any{client.ID}, &n)
		return n
	}
	for name, test := range map[string]struct {
		change []string
		want   string // OAuth error; empty for a page, because a redirect would go to a stranger
	}{
		"unknown client":       {[]string{"client_id", "nobody"}, ""},
		"foreign redirect URI": {[]string{"redirect_uri", "https://attacker.example/callback"}, ""},
		"other loopback path":  {[]string{"redirect_uri", "http://127.0.0.1:33418/other"}, ""},
		"missing PKCE":         {[]string{"code_challenge", "", "code_challenge_method", ""}, "invalid_request"},
		"plain PKCE":           {[]string{"code_challenge", strings.Repeat("a", 43), "code_challenge_method", "plain"}, "invalid_request"},
		"unknown resource":     {[]string{"resource", "https://elsewhere.example/mcp"}, "invalid_target"},
		"implicit grant":       {[]string{"response_type", "token"}, "unsupported_response_type"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := get(t, changed(t, r, test.change...))
			location := resp.Header.Get("Location")
			if test.want == "" {
				if resp.StatusCode < 400 || resp.StatusCode >= 500 || location != "" || !strings.Contains(body, "<h1") {
					t.Fatalf("%s, Location %q; want a page that explains, and no redirect", resp.Status, location)
				}
				return
			}
			if !strings.HasPrefix(location, client.RedirectURI) {
				t.Fatalf("%s, Location %q; want the error at the client\n%s", resp.Status, location, body)
			}
			q := mustParse(t, location).Query()
			if q.Get("error") != test.want || q.Get("iss") != shared.stack.Issuer() || q.Get("state") != r.State || q.Get("error_description") == "" {
				t.Errorf("the client gets %v, want %s with iss, state and a description", q, test.want)
			}
		})
	}
	if n, m := begun(), pendingSessions(t, client.ID); n != 0 || m != 0 {
		t.Errorf("%d logins and %d sessions were begun", n, m)
	}
	get(t, r.URL)
	if n := begun(); n != 1 {
		t.Errorf("%d logins are under way after a good request: the count above would prove nothing", n)
	}
}

func TestCodeIsGoodOnceAndReplayEndsTheSession(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	client := newClient(t)
	r := client.Authorize()
	walk, err := p.browser(t).Walk(t.Context(), r.URL, client.RedirectURI)
	if err != nil {
		t.Fatal(err)
	}
	code, err := client.Callback(r, walk.URL)
	if err != nil {
		t.Fatal(err)
	}
	wrong := r
	wrong.Verifier = oauth2.GenerateVerifier()
	expectTokenError(t, "a wrong verifier", "invalid_grant")(client.Redeem(t.Context(), wrong, code))
	expectTokenError(t, "a tampered code", "invalid_grant")(client.Redeem(t.Context(), r, code[:len(code)-2]+"xx"))

	token, err := client.Redeem(t.Context(), r, code)
	if err != nil {
		t.Fatalf("the code is spent by a wrong attempt: %v", err)
	}
	claims, err := journey.ParseClaims(token.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	session := connect(t, &journey.Login{Client: client, Token: token, Claims: claims}, journey.ConnectOptions{})
	checkCalls(t, session, p)

	expectTokenError(t, "the code again", "invalid_grant")(client.Redeem(t.Context(), r, code))
	expectTokenError(t, "refresh after the replay", "invalid_grant")(client.Refresh(t.Context(), token.RefreshToken))
	eventually(t, func() string {
		resp, _ := rawCall(t, shared.stack.MCPURL(), token.AccessToken, initialize)
		if resp.StatusCode != http.StatusUnauthorized {
			return "the access token of an ended session still answers " + resp.Status
		}
		return ""
	})
}

func TestRefreshTokenReuseEndsTheSession(t *testing.T) {
	t.Parallel()
	login := newPerson(t).logIn(t)
	second, err := login.Client.Refresh(t.Context(), login.Token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := login.Client.Refresh(t.Context(), second.RefreshToken); err != nil {
		t.Fatal(err)
	}
	expectTokenError(t, "a refresh token whose successor was used", "invalid_grant")(login.Client.Refresh(t.Context(), login.Token.RefreshToken))
	eventually(t, func() string {
		resp, _ := rawCall(t, shared.stack.MCPURL(), second.AccessToken, initialize)
		if resp.StatusCode != http.StatusUnauthorized {
			return "after reuse the access token still answers " + resp.Status
		}
		return ""
	})
}

func expectTokenError(t *testing.T, what, code string) func(*oauth2.Token, error) {
	t.Helper()
	return func(_ *oauth2.Token, err error) {
		t.Helper()
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
}

func TestCallbackBelongsToItsBrowserAndIsGoodOnce(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	client := newClient(t)
	r := client.Authorize()
	callback := shared.stack.Issuer() + "/oauth/callback/corp"
	stop := errors.New("intercepted")
	var intercepted string
	stopped := &interceptor{prefix: callback, seen: &intercepted, stop: stop}
	person := p.browser(t, func(o *browse.Options) { o.Transport = stopped })
	if _, err := person.Walk(t.Context(), r.URL, client.RedirectURI); !errors.Is(err, stop) {
		t.Fatalf("the walk ended with %v", err)
	}
	u := mustParse(t, intercepted)
	if u.Query().Get("state") == "" || u.Query().Get("code") == "" {
		t.Fatalf("no callback was seen: %q", u.Path)
	}
	resp, body := get(t, intercepted)
	if resp.StatusCode < 400 || resp.Header.Get("Location") != "" || !strings.Contains(body, "<h1") {
		t.Errorf("another browser gets %s, want a page that explains", resp.Status)
	}
	q := u.Query()
	q.Set("state", q.Get("state")+"x")
	u.RawQuery = q.Encode()
	if resp, _ := get(t, u.String()); resp.StatusCode < 400 || resp.Header.Get("Location") != "" {
		t.Errorf("a tampered state gets %s, want a page that explains", resp.Status)
	}
	if resp, _ := get(t, callback+"?code=x&state="+url.QueryEscape("no such state")); resp.StatusCode < 400 {
		t.Errorf("an invented state gets %s", resp.Status)
	}

	// None of it has spoiled the leg for its own browser, where it is good once.
	stopped.prefix = ""
	result, err := person.Walk(t.Context(), intercepted, client.RedirectURI)
	if err != nil {
		t.Fatalf("the callback in its own browser: %v", err)
	}
	code, err := client.Callback(r, result.URL)
	if err != nil {
		t.Fatal(err)
	}
	var stuck *browse.StuckError
	if again, err := person.Walk(t.Context(), intercepted, client.RedirectURI); !errors.As(err, &stuck) || stuck.Page.Status < 400 || stuck.Page.Title == "" {
		t.Errorf("the callback again in its own browser leads to %v (%v), want a page that explains", again.URL, err)
	}
	if _, err := client.Redeem(t.Context(), r, code); err != nil {
		t.Errorf("the replay spoils the login that it belongs to: %v", err)
	}
}

// interceptor stops a walk in front of a URL, or none when the prefix is empty.
type interceptor struct {
	prefix string
	seen   *string
	stop   error
}

// RoundTrip implements http.RoundTripper.
func (i *interceptor) RoundTrip(req *http.Request) (*http.Response, error) {
	if i.prefix != "" && strings.HasPrefix(req.URL.String(), i.prefix) {
		*i.seen = req.URL.String()
		return nil, i.stop
	}
	return http.DefaultTransport.RoundTrip(req)
}

func TestGatewayRefusesTokensThatAreNotForIt(t *testing.T) {
	t.Parallel()
	login := newPerson(t).logIn(t)
	good := login.Token.AccessToken
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "."
	narrow := loginFor(t, newPerson(t), shared.stack.MCPURL()+"/repos")
	tests := map[string]struct{ url, token string }{
		"alg none":               {shared.stack.MCPURL(), none},
		"unsigned":               {shared.stack.MCPURL(), parts[0] + "." + parts[1] + "."},
		"tampered":               {shared.stack.MCPURL(), parts[0] + "." + tamper(t, parts[1]) + "." + parts[2]},
		"not a JWT":              {shared.stack.MCPURL(), "gibberish"},
		"huge":                   {shared.stack.MCPURL(), strings.Repeat("a", 20_000)},
		"for one backend, at /":  {shared.stack.MCPURL(), narrow},
		"for one, at another":    {shared.stack.MCPURL() + "/payroll", narrow},
		"a refresh token":        {shared.stack.MCPURL(), login.Token.RefreshToken},
		"no token":               {shared.stack.MCPURL(), ""},
		"no token, /mcp/payroll": {shared.stack.MCPURL() + "/payroll", ""},
	}
	if !shared.stack.Attached() {
		tests["a provider's token"] = struct{ url, token string }{shared.stack.MCPURL(), providerToken(t)}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, body := rawCall(t, test.url, test.token, initialize)
			challenge := resp.Header.Get("WWW-Authenticate")
			if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, "resource_metadata=") {
				t.Fatalf("%s, %q, %s", resp.Status, challenge, body)
			}
			if got := strings.Contains(challenge, `error="invalid_token"`); got != (test.token != "") {
				t.Errorf("challenge %q with a token: %v", challenge, test.token != "")
			}
		})
	}
	if resp, body := rawCall(t, shared.stack.MCPURL()+"/repos", narrow, initialize); resp.StatusCode != http.StatusOK {
		t.Errorf("a token for one backend is refused there: %s %s", resp.Status, body)
	}
}

// loginFor logs in for one resource and returns the access token.
func loginFor(t *testing.T, p person, resource string) string {
	t.Helper()
	login, err := newClientAt(t, resource).Login(t.Context(), p.browser(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(login.Claims.Audience) != 1 || login.Claims.Audience[0] != resource {
		t.Fatalf("aud = %v, want %s", login.Claims.Audience, resource)
	}
	return login.Token.AccessToken
}

// providerToken is a token that corp issued for somebody else than us.
func providerToken(t *testing.T) string {
	t.Helper()
	login := newPerson(t).logIn(t)
	call(t, connect(t, login, journey.ConnectOptions{}), "payroll_whoami", nil)
	for _, e := range shared.recorders["payroll"].seen("/mcp") {
		if _, token, ok := strings.Cut(e.RequestHeader.Get("Authorization"), "Bearer "); ok {
			return token
		}
	}
	t.Fatal("payroll never got a token")
	return ""
}

func tamper(t *testing.T, payload string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	claims["sub"] = "somebody-else"
	raw, err = json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func TestGatewayExplainsBadMessages(t *testing.T) {
	t.Parallel()
	token := newPerson(t).logIn(t).Token.AccessToken
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"not JSON":       {`{"jsonrpc":`, http.StatusBadRequest, "-32700"},
		"not JSON-RPC":   {`{"hello":"world"}`, http.StatusBadRequest, "-32600"},
		"empty":          {``, http.StatusBadRequest, "-32700"},
		"over the limit": {`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"` + strings.Repeat("a", 5<<20) + `"}}`, http.StatusRequestEntityTooLarge, "-32"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, endpoint := range []string{shared.stack.MCPURL(), shared.stack.MCPURL() + "/repos"} {
				resp, body := rawCall(t, endpoint, token, test.body)
				if resp.StatusCode != test.status || !strings.Contains(body, `"code":`+test.code) {
					t.Errorf("%s: %s %.300s; want %d with code %s", endpoint, resp.Status, body, test.status, test.code)
				}
			}
		})
	}
	resp, body := rawCall(t, shared.stack.MCPURL()+"/nowhere", token, initialize)
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown backend: %s %s, want 404", resp.Status, body)
	}
}
