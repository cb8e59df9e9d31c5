package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	clientID     = "chatelaine"
	clientSecret = "secret-of-the-client-at-the-providers"

	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693, section 2.1
	// graceWindow is how long a tolerant provider takes a spent refresh token.
	graceWindow = 30 * time.Second
)

// verdict is what a provider made of a request.
type verdict string

const (
	granted  verdict = "granted"
	replayed verdict = "granted again within the grace window"
	reused   verdict = "refused, and the family revoked"
	refused  verdict = "refused"
)

// entry is one request in a provider's journal.
type entry struct {
	Kind      string // the grant type
	Family    string
	Replica   int
	Presented string
	Received  time.Time
	Answered  time.Time // zero: not yet
	Verdict   verdict
	Access    string // what was granted
	Refresh   string
}

// provider is an OpenID provider with single-use refresh tokens. A family is what
// one login began: its person, and all the tokens that were made of its first ones.
type provider struct {
	*httptest.Server
	t      testing.TB
	issuer string
	grace  time.Duration
	signer jose.Signer
	keys   jose.JSONWebKeySet
	ports  map[int]int // of replicas' own listeners

	mu       sync.Mutex
	random   *mathrand.Rand
	slowest  time.Duration // an answer takes up to this long, before it is decided and after
	hold     *hold
	families map[string]*family
	codes    map[string]code
	refresh  map[string]*refreshToken
	access   map[string]string // token → family
	journal  []*entry
}

type family struct {
	id, subject string
	revoked     bool
}

type code struct {
	family   string
	nonce    string
	lifetime time.Duration
}

type refreshToken struct {
	family  string
	spentAt time.Time
}

// hold keeps answers to refresh requests back: decided closes when the first one is
// decided, release lets them go.
type hold struct {
	once             sync.Once
	decided, release chan struct{}
}

func startProvider(t testing.TB, grace time.Duration, replicas int) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p := &provider{
		t: t, grace: grace, ports: map[int]int{}, random: mathrand.New(mathrand.NewPCG(1, 2)),
		keys:     jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}},
		families: map[string]*family{}, codes: map[string]code{}, refresh: map[string]*refreshToken{}, access: map[string]string{},
	}
	p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	must(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{
			"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token",
			"jwks_uri": p.issuer + "/keys", "token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, p.keys) })
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	p.issuer = "http://localhost:" + strconv.Itoa(portOf(p.Listener.Addr()))
	for i := range replicas { // the same server at another address
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		p.ports[portOf(ln.Addr())] = i
		go func() { _ = p.Config.Serve(ln) }() // until Close
		t.Cleanup(func() { _ = ln.Close() })
	}
	return p
}

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }

// dial is the value of --dial that leads a replica to its own address.
func (p *provider) dial(replica int) string {
	for port, i := range p.ports {
		if i == replica {
			return "localhost:" + strconv.Itoa(portOf(p.Listener.Addr())) + "=127.0.0.1:" + strconv.Itoa(port)
		}
	}
	p.t.Fatalf("no address for replica %d", replica)
	return ""
}

// authorize lets a person in: it returns the code of a new family, whose first access
// token lives so long.
func (p *provider) authorize(subject, nonce string, lifetime time.Duration) (authorizationCode, familyID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &family{id: rand.Text(), subject: subject}
	p.families[f.id] = f
	authorizationCode = "code-" + rand.Text()
	p.codes[authorizationCode] = code{f.id, nonce, lifetime}
	return authorizationCode, f.id
}

// holdAnswers keeps the answers to refresh requests back from now on.
func (p *provider) holdAnswers() *hold {
	h := &hold{decided: make(chan struct{}), release: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = h
	return h
}

func (p *provider) letGo(h *hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = nil
	close(h.release)
}

// token is the token endpoint (RFC 6749, section 3.2). What was received is decided,
// whether or not anybody waits for the answer.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	e := &entry{Kind: r.FormValue("grant_type"), Received: time.Now(), Replica: -1}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if i, ok := p.ports[portOf(local)]; ok {
			e.Replica = i
		}
	}
	p.mu.Lock()
	p.journal = append(p.journal, e)
	before, after := p.pause(e), p.pause(e)
	p.mu.Unlock()
	if id, password, ok := r.BasicAuth(); !ok || id != clientID || password != clientSecret {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	wait(before)
	p.mu.Lock()
	status, document := p.decide(e, r)
	h := p.hold
	p.mu.Unlock()
	if h != nil && e.Kind == "refresh_token" {
		h.once.Do(func() { close(h.decided) })
		<-h.release
	}
	wait(after)
	answer(w, status, document)
	p.mu.Lock()
	e.Answered = time.Now()
	p.mu.Unlock()
}

// pause is one half of the time that an answer takes; p.mu is held.
func (p *provider) pause(e *entry) time.Duration {
	if p.slowest == 0 || e.Kind != "refresh_token" {
		return 0
	}
	return time.Duration(p.random.Int64N(int64(p.slowest)))
}

func wait(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// decide makes the answer; p.mu is held.
func (p *provider) decide(e *entry, r *http.Request) (status int, document any) {
	switch e.Kind {
	case "authorization_code":
		e.Presented = r.FormValue("code")
		c, ok := p.codes[e.Presented]
		if !ok {
			return p.refuse(e, refused)
		}
		delete(p.codes, e.Presented)
		e.Family = c.family
		return p.grant(e, granted, c.nonce, c.lifetime)
	case "refresh_token":
		e.Presented = r.FormValue("refresh_token")
		t, ok := p.refresh[e.Presented]
		if !ok {
			return p.refuse(e, refused)
		}
		e.Family = t.family
		f := p.families[t.family]
		switch {
		case f.revoked:
			return p.refuse(e, refused)
		case t.spentAt.IsZero():
			t.spentAt = time.Now()
			return p.grant(e, granted, "", time.Hour)
		case time.Since(t.spentAt) < p.grace:
			return p.grant(e, replayed, "", time.Hour)
		}
		f.revoked = true
		return p.refuse(e, reused)
	case grantExchange:
		e.Presented = r.FormValue("subject_token")
		owner, ok := p.access[e.Presented]
		if !ok || p.families[owner].revoked {
			return p.refuse(e, refused)
		}
		e.Family, e.Verdict, e.Access = owner, granted, "exchanged-"+rand.Text()
		return http.StatusOK, map[string]any{
			"access_token": e.Access, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3600,
		}
	}
	return http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"}
}

func (p *provider) refuse(e *entry, v verdict) (status int, document any) {
	e.Verdict = v
	return http.StatusBadRequest, map[string]any{"error": "invalid_grant"}
}

func (p *provider) grant(e *entry, v verdict, nonce string, lifetime time.Duration) (status int, document any) {
	f := p.families[e.Family]
	e.Verdict, e.Access, e.Refresh = v, "access-"+rand.Text(), "refresh-"+rand.Text()
	p.access[e.Access], p.refresh[e.Refresh] = f.id, &refreshToken{family: f.id}
	claims := map[string]any{
		"iss": p.issuer, "sub": f.subject, "aud": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"name": "Person " + f.subject, "email": f.subject + "@example.com",
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return http.StatusOK, map[string]any{
		"access_token": e.Access, "refresh_token": e.Refresh, "id_token": sign(p.t, p.signer, claims), "token_type": "Bearer",
		"expires_in": int(lifetime.Seconds()), "scope": "openid offline_access",
	}
}

// requests are a family's journal entries of one kind, in the order of arrival.
func (p *provider) requests(kind, familyID string) []entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []entry
	for _, e := range p.journal {
		if e.Kind == kind && e.Family == familyID {
			found = append(found, *e)
		}
	}
	return found
}

// undecided are requests of a kind whose family the provider does not know yet.
func (p *provider) undecided(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.journal {
		if e.Kind == kind && e.Verdict == "" {
			n++
		}
	}
	return n
}

func (p *provider) revoked(familyID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.families[familyID].revoked
}

// ownerOf returns the family that an access token was made for.
func (p *provider) ownerOf(accessToken string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.access[accessToken]
}

func answer(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document) // whoever asked may be dead
}

func sign(t testing.TB, signer jose.Signer, claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Error(err)
		return ""
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Error(err)
		return ""
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Error(err)
	}
	return text
}
