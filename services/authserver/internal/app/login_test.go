package app_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/fault"
)

func TestOneLoginWalksThroughEveryProviderAndEndsInTokens(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b := s.client(), s.browser()

	consent := b.get(c.query())
	wantStatus(t, consent, http.StatusOK, "Example Client", "127.0.0.1:33418", "corp", "octohub", "optional", audience, "registered itself")
	if n := len(s.broker.Sessions("pending")); n != 0 {
		t.Error("a session was begun before the person agreed")
	}
	first := b.answer(consent, "approve")
	wantStatus(t, first, http.StatusSeeOther)
	leg, err := url.Parse(first.location)
	s.must(err)
	q := leg.Query()
	if leg.Host != "corp.example" || q.Get("tenant") != "1" || q.Get("access_type") != "offline" || q.Get("scope") != "openid profile email offline_access" ||
		q.Get("nonce") == "" || q.Get("state") == "never-taken" || q.Get("redirect_uri") != issuer+"/oauth/callback/corp" {
		t.Errorf("first leg %s", first.location)
	}
	second := b.get(s.broker.SignIn(t, first.location, "alice"))
	wantStatus(t, second, http.StatusSeeOther)
	if !strings.HasPrefix(second.location, "https://octohub.example/login/oauth/authorize?") || strings.Contains(second.location, "nonce=") {
		t.Errorf("second leg %s", second.location)
	}
	last := b.get(s.broker.SignIn(t, second.location, "alice"))
	wantStatus(t, last, http.StatusSeeOther)
	code := s.clientAnswer(last.location).Get("code")
	if len(s.broker.Sessions("active")) != 0 {
		t.Error("the session is active before its code was redeemed")
	}

	got := c.redeem(code)
	if got.status != http.StatusOK || !strings.EqualFold(got.TokenType, "bearer") || got.Scope != "tools" || got.RefreshToken == "" || got.ExpiresIn < 3590 || got.ExpiresIn > 3600 {
		t.Fatalf("tokens %+v", got)
	}
	typ, claims := s.verified(got.AccessToken)
	if typ != "at+jwt" {
		t.Errorf("typ %q", typ)
	}
	session := s.broker.Sessions("active")[0]
	if claims["jti"] == "" || claims["exp"].(float64)-claims["iat"].(float64) < 3590 {
		t.Errorf("claims %v", claims)
	}
	for _, name := range []string{"jti", "exp", "iat"} {
		delete(claims, name)
	}
	if diff := cmp.Diff(map[string]any{
		"iss": issuer, "sub": "user-alice", "aud": []any{audience}, "client_id": c.id, "scope": "tools", "tsid": session,
	}, claims); diff != "" {
		t.Error(diff)
	}
	s.notLogged(code, got.AccessToken, got.RefreshToken, q.Get("state"), c.verifier)
}

func TestTheCookieOfALoginIsSafe(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"http://localhost:8080":  "chatelaine-browser-8080=; Path=/; HttpOnly; SameSite=Lax",
		"https://auth.example":   "__Host-chatelaine-browser=; Path=/; HttpOnly; Secure; SameSite=Lax",
		"https://auth.example/t": "__Host-chatelaine-browser=; Path=/; HttpOnly; Secure; SameSite=Lax",
	} {
		s := newSystemWith(t, options{issuer: base})
		p := s.browser().get(s.client().query())
		cookies := p.header.Values("Set-Cookie")
		if len(cookies) != 1 {
			t.Fatalf("%s: cookies %v", base, cookies)
		}
		name, rest, _ := strings.Cut(cookies[0], "=")
		value, attributes, _ := strings.Cut(rest, ";")
		if got := name + "=;" + attributes; got != want || len(value) != 43 {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
}

func TestABrowserKeepsOnlyACookieOfOurs(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, value := range []string{"", "x", "not base64!", strings.Repeat("A", 44)} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.local(s.client().query()), nil)
		s.must(err)
		r.Header.Set("Cookie", "chatelaine-browser-8080="+value)
		p := s.browser().do(r)
		wantStatus(t, p, http.StatusOK)
		if len(p.header.Values("Set-Cookie")) != 1 {
			t.Errorf("a login was bound to the cookie %q", value)
		}
	}
}

func TestThePagesCarryTheHeadersThatProtectThem(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, p := range []page{s.browser().get(s.client().query()), s.browser().get("/oauth/authorize")} {
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Access-Control-Allow-Origin": "",
		} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if csp := p.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") ||
			strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") {
			t.Errorf("CSP %s", csp)
		}
	}
}

func TestARequestThatCannotBeTrustedIsAPageAndNeverARedirect(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	for name, tt := range map[string]struct {
		edit func(q url.Values)
		text string
	}{
		"unknown client":       {func(q url.Values) { q.Set("client_id", "nobody") }, "not registered"},
		"no client":            {func(q url.Values) { q.Del("client_id") }, "without saying which application"},
		"two clients":          {func(q url.Values) { q.Add("client_id", c.id) }, "without saying which application"},
		"a client with a zero": {func(q url.Values) { q.Set("client_id", "a\x00b") }, "not registered"},
		"foreign redirect URI": {func(q url.Values) { q.Set("redirect_uri", "https://evil.example/cb") }, "address that it has not registered"},
		"another path":         {func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:33418/other") }, "address that it has not registered"},
		"another loopback":     {func(q url.Values) { q.Set("redirect_uri", "http://localhost:33418/cb") }, "address that it has not registered"},
		"two redirect URIs":    {func(q url.Values) { q.Add("redirect_uri", redirect) }, "address that it has not registered"},
		"an empty one":         {func(q url.Values) { q.Set("redirect_uri", "") }, "address that it has not registered"},
	} {
		p := s.browser().get(c.query(tt.edit))
		if p.location != "" {
			t.Errorf("%s: redirected to %s", name, p.location)
		}
		wantStatus(t, p, http.StatusBadRequest, tt.text, "What you can do", "Reference")
		if p.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: set a cookie", name)
		}
	}
	s.nothingLeft()
}

func TestARequestThatIsWrongIsAnsweredToTheClientAtOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	for name, tt := range map[string]struct {
		edit       func(q url.Values)
		code, text string
	}{
		"no PKCE":                  {func(q url.Values) { q.Del("code_challenge") }, "invalid_request", "PKCE is required"},
		"plain PKCE":               {func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request", "must be S256"},
		"PKCE without a method":    {func(q url.Values) { q.Del("code_challenge_method") }, "invalid_request", "must be S256"},
		"a short challenge":        {func(q url.Values) { q.Set("code_challenge", "abc") }, "invalid_request", "43 characters"},
		"unknown resource":         {func(q url.Values) { q.Set("resource", "https://other.example/mcp") }, "invalid_target", "unknown resource"},
		"one unknown of two":       {func(q url.Values) { q.Add("resource", "https://other.example/mcp") }, "invalid_target", "unknown resource"},
		"a backend we lack":        {func(q url.Values) { q.Set("resource", audience+"/nothing") }, "invalid_target", "unknown resource"},
		"implicit":                 {func(q url.Values) { q.Set("response_type", "token") }, "unsupported_response_type", "code"},
		"no response type":         {func(q url.Values) { q.Del("response_type") }, "invalid_request", "response_type"},
		"fragment":                 {func(q url.Values) { q.Set("response_mode", "fragment") }, "invalid_request", "response_mode"},
		"a request object":         {func(q url.Values) { q.Set("request", "eyJ") }, "request_not_supported", "request"},
		"a request URI":            {func(q url.Values) { q.Set("request_uri", "https://x.example") }, "request_uri_not_supported", "request_uri"},
		"a state with a zero byte": {func(q url.Values) { q.Set("state", "a\x00b") }, "invalid_request", "printable"},
		"a state of 5,000 bytes":   {func(q url.Values) { q.Set("state", strings.Repeat("x", 5000)) }, "invalid_request", "longer"},
		"two scopes":               {func(q url.Values) { q.Add("scope", "admin") }, "invalid_request", "more than once"},
	} {
		p := s.browser().get(c.query(tt.edit))
		wantStatus(t, p, http.StatusSeeOther)
		_, query, _ := strings.Cut(p.location, "?")
		q, err := url.ParseQuery(query)
		s.must(err)
		if !strings.HasPrefix(p.location, redirect+"?") || q.Get("error") != tt.code || !strings.Contains(q.Get("error_description"), tt.text) ||
			q.Get("iss") != issuer || (q.Get("state") != "client-state") != strings.HasPrefix(name, "a state") || strings.HasPrefix(name, "a state") && q.Has("state") {
			t.Errorf("%s: %v", name, q)
		}
	}
	if s.broker.Calls("ListProviders") != 0 {
		t.Error("the broker was asked before the checks were done")
	}
	s.nothingLeft()
}

func TestALinkToUsLeadsNobodyToASiteThatTheyHaveNotSeen(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	down := true // a list of providers that is known is good for a moment
	for uri, place := range map[string]string{
		"https://phish.example/login":                       "phish.example",
		"cursor://anysphere.cursor-mcp/oauth/callback":      "cursor:",
		"https://xn--pple-43d.com/cb?a=%22%3E%3Cscript%3E1": "xn--pple-43d.com",
	} {
		c := s.clientWith(`{"redirect_uris":["` + uri + `"]}`)
		c.redirect = uri
		p := s.browser().get(c.query(func(q url.Values) { q.Set("response_type", "token") }))
		wantStatus(t, p, http.StatusBadRequest, "Go back to "+place+"</a>", "error=unsupported_response_type", "state=client-state")
		if p.location != "" || strings.Contains(p.body, "<script") {
			t.Errorf("%s: %q\n%s", uri, p.location, p.body)
		}
		if down {
			s.broker.Fail(fault.New(fault.Unavailable, "down"))
			wantStatus(t, s.browser().get(c.query()), http.StatusServiceUnavailable, "Go back to "+place+"</a>", "error=temporarily_unavailable")
			s.broker.Fail(nil)
			down = false
		}
		denied := s.browser()
		if got := denied.answer(denied.get(c.query()), "deny"); !strings.HasPrefix(got.location, uri) { // a person has clicked
			t.Errorf("%s: denied, and sent to %q", uri, got.location)
		}
	}
}

func TestAPreviewOfALinkSpendsNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b := s.client(), s.browser()
	callback := s.broker.SignIn(t, c.approve(b), "alice")
	for _, target := range []string{callback, c.query(), "/oauth/confirm?request=x"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, s.local(target), nil)
		s.must(err)
		wantStatus(t, b.do(r), http.StatusMethodNotAllowed)
	}
	wantStatus(t, b.get(callback), http.StatusSeeOther)
}

func TestScopesAreLeftOutAndNeverRefused(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for asked, want := range map[string]string{
		"tools admin": "tools admin", "admin": "admin", "openid nonsense": "", "": "tools admin offline_access",
		"offline_access tools": "tools offline_access",
	} {
		c := s.client()
		got := c.redeem(c.login(s.browser(), func(q url.Values) { q.Set("scope", asked) }))
		if got.Scope != want {
			t.Errorf("asked for %q, got %q, want %q", asked, got.Scope, want)
		}
		if got.RefreshToken == "" {
			t.Errorf("%q: no refresh token for a client that registered the grant", asked)
		}
	}
}

func TestAClientGetsNoScopeBeyondItsRegistration(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.clientWith(`{"redirect_uris":["http://127.0.0.1:1/cb"],"scope":"tools"}`)
	for _, asked := range []string{"tools admin offline_access", ""} {
		if got := c.redeem(c.login(s.browser(), func(q url.Values) { q.Set("scope", asked) })); got.Scope != "tools" {
			t.Errorf("asked for %q, got %q", asked, got.Scope)
		}
	}
}

func TestWhatOneLegGivesAwayIsNoGoodForAnother(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	seen := map[string]string{}
	for range 2 {
		b := s.browser()
		leg := c.approve(b)
		for _, provider := range []string{"corp", "octohub"} {
			u, err := url.Parse(leg)
			s.must(err)
			for _, name := range []string{"state", "code_challenge", "nonce"} {
				value := u.Query().Get(name)
				if value == "" && (name != "nonce" || provider == "corp") || value != "" && (len(value) < 43 || seen[value] != "") {
					t.Errorf("%s's %s is %q, and was %s", provider, name, value, seen[value])
				}
				seen[value] = provider + "'s " + name
			}
			leg = b.get(s.broker.SignIn(t, leg, "alice")).location
		}
	}
}

func TestOtherRequestsThatRealClientsSendWork(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for name, tt := range map[string]struct {
		edit func(q url.Values)
		want []any
	}{
		"no resource":    {func(q url.Values) { q.Del("resource") }, []any{audience}},
		"a backend":      {func(q url.Values) { q.Set("resource", audience+"/repos") }, []any{audience + "/repos"}},
		"a list":         {func(q url.Values) { q["resource"] = []string{audience + "/repos", audience} }, []any{audience + "/repos", audience}},
		"twice the same": {func(q url.Values) { q["resource"] = []string{audience, audience} }, []any{audience}},
		"unknown params": {func(q url.Values) { q.Set("prompt", "consent"); q.Set("audience", "x") }, []any{audience}},
		"response_mode":  {func(q url.Values) { q.Set("response_mode", "query") }, []any{audience}},
	} {
		c := s.client()
		got := c.redeem(c.login(s.browser(), tt.edit))
		if got.status != http.StatusOK {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if _, claims := s.verified(got.AccessToken); !cmp.Equal(claims["aud"], any(tt.want)) {
			t.Errorf("%s: aud %v, want %v", name, claims["aud"], tt.want)
		}
	}
}

func TestACallbackInAnotherBrowserIsRefusedAndSpoilsNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b := s.client(), s.browser()
	callback := s.broker.SignIn(t, c.approve(b), "alice")

	stranger := s.browser()
	wantStatus(t, stranger.get(callback), http.StatusForbidden, "not known here")
	stranger.get(c.query()) // now it has a cookie of its own
	wantStatus(t, stranger.get(callback), http.StatusForbidden, "another browser")
	if s.broker.Calls("RedeemCode") != 0 {
		t.Error("the stranger's callback reached the broker")
	}
	if p := b.get(callback); !strings.HasPrefix(p.location, "https://octohub.example/") {
		t.Errorf("the owner's login was spoiled: %d %s", p.status, p.body)
	}
}

func TestAStateIsGoodOnceForItsOwnProvider(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	b := s.browser()
	callback := s.broker.SignIn(t, s.client().approve(b), "alice")
	for name, bad := range map[string]string{
		"a tampered state":         strings.Replace(callback, "state=", "state=x", 1),
		"no state":                 strings.Replace(callback, "state=", "stat=", 1),
		"another provider's path":  strings.Replace(callback, "/callback/corp", "/callback/octohub", 1),
		"an oversize state":        strings.Replace(callback, "state=", "state="+strings.Repeat("x", 5000), 1),
		"a state with a zero byte": strings.Replace(callback, "state=", "state=%00", 1),
		"two states":               callback + "&state=another",
	} {
		p := b.get(bad)
		if p.status != http.StatusBadRequest && p.status != http.StatusForbidden || p.location != "" {
			t.Errorf("%s: %d %s", name, p.status, p.location)
		}
	}
	wantStatus(t, b.get(strings.Replace(callback, "/callback/corp", "/callback/nobody", 1)), http.StatusNotFound)
	wantStatus(t, b.get(callback), http.StatusSeeOther)
	wantStatus(t, b.get(callback), http.StatusBadRequest, "Nothing to continue")
	if n := s.broker.Calls("RedeemCode"); n != 1 {
		t.Errorf("%d redemptions, want 1", n)
	}
}

func TestAChainThatTookTooLongIsOver(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b := s.client(), s.browser()
	consent := b.get(c.query())
	callback := s.broker.SignIn(t, c.approve(b), "alice")
	s.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	wantStatus(t, b.get(callback), http.StatusBadRequest, "Nothing to continue")
	wantStatus(t, b.answer(consent, "approve"), http.StatusBadRequest, "This sign-in is over")
}

func TestTwoLoginsInOneBrowserDoNotMix(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	one, two, b := s.client(), s.client(), s.browser()
	legOne, legTwo := one.approve(b), two.approve(b)
	afterTwo := b.get(s.broker.SignIn(t, legTwo, "bob"))
	afterOne := b.get(s.broker.SignIn(t, legOne, "alice"))
	codeTwo := s.clientAnswer(b.get(s.broker.SignIn(t, afterTwo.location, "bob")).location).Get("code")
	codeOne := s.clientAnswer(b.get(s.broker.SignIn(t, afterOne.location, "alice")).location).Get("code")
	var users []string
	for _, t := range []tokens{one.redeem(codeOne), two.redeem(codeTwo)} {
		_, claims := s.verified(t.AccessToken)
		users = append(users, claims["sub"].(string))
	}
	if !slices.Equal(users, []string{"user-alice", "user-bob"}) {
		t.Errorf("users %v", users)
	}
}

func TestAuditLinesSayWhatHappenedAndToWhom(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.connected()
	logs := s.logs.String()
	for _, action := range []string{"client.registered", "login.consent", "login.leg", "login.chain", "token.issued"} {
		if !strings.Contains(logs, `"action":"`+action+`"`) {
			t.Errorf("no audit line for %s", action)
		}
	}
	if !strings.Contains(logs, `"provider":"octohub"`) || !strings.Contains(logs, `"outcome":"linked"`) || !strings.Contains(logs, `"request_id"`) {
		t.Error("the lines of the legs say too little")
	}
	s.notLogged("alice")
}

func TestNothingWaitsLongerThanTenMinutes(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.client().approve(s.browser())
	var left time.Duration
	s.must(s.pool.QueryRow(t.Context(), `SELECT max(r.expires_at) - now() FROM authserver.legs JOIN authserver.authorization_requests r ON r.id = request_id`).Scan(&left))
	if left > 10*time.Minute || left < 9*time.Minute {
		t.Errorf("a leg lives for %v", left)
	}
}
