package app_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/brokertest"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	issuer   = "http://localhost:8080"
	audience = "http://localhost:8000/mcp"
	redirect = "http://127.0.0.1:33418/cb"
)

const resources = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  authServerConfig:
    issuer: ISSUER
    signingKeySecretRefs: [{name: authserver, key: signing}]
    hmacSecretRefs: [{name: authserver, key: hmac}]
    allowConfidentialClientRegistration: true
    upstreamProviders:
      - {name: corp, type: oidc, oidcConfig: {issuerUrl: "https://corp.example", clientId: chatelaine, scopes: [openid]}}
      - name: octohub
        type: oauth2
        optional: true
        oauth2Config:
          authorizationEndpoint: https://octohub.example/login/oauth/authorize
          tokenEndpoint: https://octohub.example/login/oauth/access_token
          clientId: chatelaine
          userInfo: {endpointUrl: "https://octohub.example/user", fieldMapping: {subjectFields: [id]}}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "http://localhost:8000/mcp", scopes: [tools, admin]}
  outgoingAuth: {source: inline}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: repos}
spec: {groupRef: {name: demo}, remoteUrl: "http://localhost:7001/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "ISSUER"}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

// deployment is that of the resources, edited.
func deployment(t testing.TB, issuer string, edit ...func(string) string) *config.Deployment {
	t.Helper()
	text := strings.ReplaceAll(resources, "ISSUER", issuer)
	for _, e := range edit {
		edited := e(text)
		if edited == text {
			t.Fatal("the edit changes nothing")
		}
		text = edited
	}
	set, report := config.Parse(config.Source{Name: "test.yaml", Data: []byte(text)})
	if err := report.Err(); err != nil {
		var b bytes.Buffer
		_, _ = report.WriteTo(&b)
		t.Fatal(b.String())
	}
	return set.Deployment()
}

// system is the authorization server with a real database and a broker in memory.
type system struct {
	t      *testing.T
	server *app.Server
	broker *brokertest.Broker
	pool   *pgxpool.Pool
	logs   *lockedBuffer
	// base is the issuer's path.
	base string
	// doors are the origins at which the server believes to be.
	doors []string
	web   *httptest.Server
}

// signingKeyPEM makes a key as the configuration has it.
func signingKeyPEM(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

type options struct {
	issuer string
	// resources edits them; the broker has their providers then.
	resources func(string) string
	flags     func(*app.Flags)
	// schema is what the database has; nil means that of this version.
	schema *postgres.Migrations
}

func newSystem(t *testing.T) *system { return newSystemWith(t, options{}) }

func newSystemWith(t *testing.T, o options) *system {
	t.Helper()
	if o.issuer == "" {
		o.issuer = issuer
	}
	schema := store.Migrations()
	if o.schema != nil {
		schema = *o.schema
	}
	s := &system{t: t, pool: pgtest.New(t, schema), logs: &lockedBuffer{}}
	d := deployment(t, o.issuer)
	s.broker = brokertest.New(brokertest.Corp(o.issuer), brokertest.Octohub(o.issuer))
	if o.resources != nil {
		d = deployment(t, o.issuer, o.resources)
		s.broker = brokertest.Of(d)
	}
	signing := signingKeyPEM(t)
	env := map[string]string{
		"AUTHSERVER_SIGNING": signing,
		"AUTHSERVER_HMAC":    base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())),
	}
	tel := telemetry.Discard()
	var err error
	tel.Logger, err = telemetry.NewLogger(s.logs, "json", nil)
	s.must(err)
	flags := &app.Flags{
		RegistrationsPerMinute: 600, RegistrationBurst: 600, LoginsPerMinute: 600, LoginBurst: 600, RefreshGrace: time.Minute, KeyPublishDelay: 10 * time.Minute,
		UnusedClients: time.Hour, IdleClients: time.Hour, Drain: cli.Drain{DrainTimeout: time.Second},
	}
	if o.flags != nil {
		o.flags(flags)
	}
	s.server, err = app.New(app.Config{
		Flags: flags, Deployment: d, Database: s.pool, Broker: s.broker.Serve(t), Telemetry: tel,
		Secrets: &secret.Resolver{LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }},
	})
	s.must(err)
	s.must(s.server.Keys.Publish(t.Context()))
	u, err := url.Parse(o.issuer)
	s.must(err)
	s.base = u.Path
	s.web = httptest.NewServer(s.server.Handler)
	t.Cleanup(s.web.Close)
	return s
}

func (s *system) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(fault.Detail(err))
	}
}

func (s *system) count(sql string, args ...any) (n int) {
	s.t.Helper()
	s.must(s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&n))
	return n
}

func (s *system) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(s.t.Context(), sql, args...)
	s.must(err)
}

// settle sends what the outbox has.
func (s *system) settle() {
	s.t.Helper()
	_, err := s.server.Outbox.Flush(s.t.Context())
	s.must(err)
}

// nothingLeft fails when a chain that ended left something behind.
func (s *system) nothingLeft() {
	s.t.Helper()
	s.settle()
	for _, table := range []string{"authorization_requests", "legs", "authorization_codes", "grants", "refresh_tokens", "session_ends"} {
		if n := s.count(`SELECT count(*) FROM authserver.` + table); n != 0 {
			s.t.Errorf("%d rows left in %s", n, table)
		}
	}
	if left := append(s.broker.Sessions("pending"), s.broker.Sessions("active")...); len(left) > 0 {
		s.t.Errorf("sessions left at the broker: %v", left)
	}
}

// browser is one with a cookie jar; it stops at each redirect. The server believes
// to be at the issuer, so requests to the issuer go to the test's listener.
type browser struct {
	s      *system
	client *http.Client
}

func (s *system) browser() *browser {
	jar, err := cookiejar.New(nil)
	s.must(err)
	return &browser{s: s, client: &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type page struct {
	status   int
	header   http.Header
	location string
	body     string
}

func (s *system) local(target string) string {
	for _, door := range append(s.doors, "http://localhost:8080") {
		if rest, ok := strings.CutPrefix(target, door); ok {
			target = rest
		}
	}
	if strings.HasPrefix(target, "/") {
		return s.web.URL + target
	}
	return target
}

func (b *browser) do(r *http.Request) page {
	b.s.t.Helper()
	response, err := b.client.Do(r)
	b.s.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	b.s.must(err)
	return page{response.StatusCode, response.Header, response.Header.Get("Location"), style.ReplaceAllString(string(body), "")}
}

func (b *browser) get(target string) page {
	b.s.t.Helper()
	r, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodGet, b.s.local(target), nil)
	b.s.must(err)
	return b.do(r)
}

func (b *browser) post(target string, form url.Values) page {
	b.s.t.Helper()
	r, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodPost, b.s.local(target), strings.NewReader(form.Encode()))
	b.s.must(err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

var (
	style      = regexp.MustCompile(`(?s)<style>.*?</style>`) // too long for messages
	formAction = regexp.MustCompile(`<form method="post" action="([^"]+)"`)
	hidden     = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)
)

// answer fills in the one form of a page.
func (b *browser) answer(p page, decision string) page {
	b.s.t.Helper()
	action := formAction.FindStringSubmatch(p.body)
	if action == nil {
		b.s.t.Fatalf("no form on the page: %d %s\n%s", p.status, p.location, p.body)
	}
	form := url.Values{"decision": {decision}}
	for _, field := range hidden.FindAllStringSubmatch(p.body, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	return b.post(html.UnescapeString(action[1]), form)
}

// client is an OAuth client that registered itself.
type client struct {
	s        *system
	id       string
	secret   string
	method   string
	redirect string
	verifier string
}

func (s *system) register(metadata string) (int, map[string]any) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.local(s.base+"/oauth/register"), strings.NewReader(metadata))
	s.must(err)
	p := s.browser().do(r)
	var answer map[string]any
	s.must(json.Unmarshal([]byte(p.body), &answer))
	return p.status, answer
}

func (s *system) client() *client {
	s.t.Helper()
	return s.clientWith(`{"client_name":"Example Client","redirect_uris":["http://127.0.0.1:1/cb"],"grant_types":["authorization_code","refresh_token"]}`)
}

func (s *system) clientWith(metadata string) *client {
	s.t.Helper()
	status, answer := s.register(metadata)
	if status != http.StatusCreated {
		s.t.Fatalf("registration: %d %v", status, answer)
	}
	c := &client{s: s, id: answer["client_id"].(string), method: answer["token_endpoint_auth_method"].(string), redirect: redirect, verifier: rand.Text() + rand.Text()}
	c.secret, _ = answer["client_secret"].(string)
	return c
}

func (c *client) challenge() string {
	sum := sha256.Sum256([]byte(c.verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// query is a good authorization request; edit spoils it.
func (c *client) query(edit ...func(q url.Values)) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {c.id}, "redirect_uri": {c.redirect}, "state": {"client-state"},
		"code_challenge": {c.challenge()}, "code_challenge_method": {"S256"}, "resource": {audience}, "scope": {"tools unknown"},
	}
	for _, e := range edit {
		e(q)
	}
	return c.s.base + "/oauth/authorize?" + q.Encode()
}

// approve opens the consent page and agrees; it returns the first leg's URL.
func (c *client) approve(b *browser, edit ...func(q url.Values)) string {
	c.s.t.Helper()
	p := b.answer(b.get(c.query(edit...)), "approve")
	if p.status != http.StatusSeeOther {
		c.s.t.Fatalf("approval: %d\n%s", p.status, p.body)
	}
	return p.location
}

// login walks through the whole chain as alice and returns the code.
func (c *client) login(b *browser, edit ...func(q url.Values)) string {
	c.s.t.Helper()
	_, last := c.s.walk(b, c.approve(b, edit...))
	return c.s.clientAnswer(last).Get("code")
}

// walk signs in as alice at each provider that the browser is sent to, from the first
// leg on. It returns those providers' hosts, and where the last leg has led to.
func (s *system) walk(b *browser, leg string) (hosts []string, last string) {
	s.t.Helper()
	for range 10 {
		u, err := url.Parse(leg)
		s.must(err)
		if !strings.HasSuffix(u.Host, ".example") {
			return hosts, leg
		}
		hosts = append(hosts, u.Host)
		p := b.get(s.broker.SignIn(s.t, leg, "alice"))
		if p.status != http.StatusSeeOther {
			s.t.Fatalf("leg: %d\n%s", p.status, p.body)
		}
		leg = p.location
	}
	s.t.Fatalf("the walk does not end: %v", hosts)
	return nil, ""
}

// clientAnswer checks that a redirect goes to the client with iss and state.
func (s *system) clientAnswer(location string) url.Values {
	s.t.Helper()
	target, query, _ := strings.Cut(location, "?")
	q, err := url.ParseQuery(query)
	s.must(err)
	if target != redirect || q.Get("iss") != issuer || q.Get("state") != "client-state" {
		s.t.Fatalf("the client was answered with %q", location)
	}
	return q
}

type tokens struct {
	status       int
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	TokenType    string `json:"token_type"`
	Scope        string `json:"scope"`
	ExpiresIn    int    `json:"expires_in"`
	Error        string `json:"error"`
	Description  string `json:"error_description"`
	header       http.Header
}

func (c *client) post(path string, form url.Values) page {
	c.s.t.Helper()
	r, err := http.NewRequestWithContext(c.s.t.Context(), http.MethodPost, c.s.local(c.s.base+path), nil)
	c.s.must(err)
	switch c.method {
	case "client_secret_basic":
		r.SetBasicAuth(c.id, c.secret)
	case "client_secret_post":
		form.Set("client_id", c.id)
		form.Set("client_secret", c.secret)
	default:
		form.Set("client_id", c.id)
	}
	r.Body = io.NopCloser(strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.s.browser().do(r)
}

func (c *client) token(form url.Values) tokens {
	c.s.t.Helper()
	p := c.post("/oauth/token", form)
	var t tokens
	if err := json.Unmarshal([]byte(p.body), &t); err != nil {
		c.s.t.Fatalf("token endpoint: %d %q", p.status, p.body)
	}
	if p.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(p.header.Get("Content-Type"), "application/json") {
		c.s.t.Errorf("headers %v", p.header)
	}
	t.status, t.header = p.status, p.header
	return t
}

func (c *client) redemption(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {c.verifier}, "redirect_uri": {c.redirect}}
}

func (c *client) redeem(code string) tokens {
	c.s.t.Helper()
	return c.token(c.redemption(code))
}

func (c *client) refresh(token string) tokens {
	c.s.t.Helper()
	return c.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// connected returns a client with tokens.
func (s *system) connected() (*client, tokens) {
	s.t.Helper()
	c := s.client()
	t := c.redeem(c.login(s.browser()))
	if t.status != http.StatusOK {
		s.t.Fatalf("redemption: %d %s %s", t.status, t.Error, t.Description)
	}
	return c, t
}

// verified returns header and claims of a JWT that the published keys verify.
func (s *system) verified(token string) (typ string, claims map[string]any) {
	s.t.Helper()
	var jwks jose.JSONWebKeySet
	s.must(json.Unmarshal([]byte(s.browser().get(s.base+"/oauth/jwks").body), &jwks))
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	s.must(err)
	keys := jwks.Key(parsed.Signatures[0].Protected.KeyID)
	if len(keys) != 1 {
		s.t.Fatalf("kid %q is not published", parsed.Signatures[0].Protected.KeyID)
	}
	payload, err := parsed.Verify(keys[0])
	s.must(err)
	s.must(json.Unmarshal(payload, &claims))
	typ, _ = parsed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string)
	return typ, claims
}

// wantEnded checks that one session ended at the broker, for this reason.
func (s *system) wantEnded(reason brokerv1.SessionEndReason) {
	s.t.Helper()
	s.settle()
	ended := s.broker.Sessions("ended")
	if len(ended) != 1 {
		s.t.Fatalf("%d sessions ended, want 1", len(ended))
	}
	if _, got := s.broker.Session(ended[0]); got != reason {
		s.t.Errorf("ended because of %v, want %v", got, reason)
	}
}

// logged fails when a secret of the test is in the logs.
func (s *system) notLogged(values ...string) {
	s.t.Helper()
	logs := s.logs.String()
	for _, v := range values {
		if v != "" && strings.Contains(logs, v) {
			s.t.Errorf("the logs have %.12s…", v)
		}
	}
}

func wantStatus(t *testing.T, p page, status int, texts ...string) {
	t.Helper()
	if p.status != status {
		t.Errorf("status %d, want %d: %s", p.status, status, p.body)
	}
	for _, text := range texts {
		if !strings.Contains(p.body, text) {
			t.Errorf("the page does not say %q:\n%s", text, p.body)
		}
	}
	if slices.Contains([]int{301, 302, 303, 307, 308}, p.status) != (p.location != "") {
		t.Errorf("status %d with location %q", p.status, p.location)
	}
}
