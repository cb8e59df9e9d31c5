package app_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/brokertest"
	"chatelaine.dev/services/authserver/internal/store"
)

// house is a deployment with several replicas behind one address. The test says
// which of them gets the next request.
type house struct {
	*system
	hmac  string
	login brokerv1.LoginServiceClient
	next  atomic.Pointer[http.Handler]
}

func hmacSecret() string { return base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())) }

func newHouse(t *testing.T, pool *pgxpool.Pool) *house {
	t.Helper()
	h := &house{
		system: &system{t: t, pool: pool, logs: &lockedBuffer{}, broker: brokertest.New(brokertest.Corp(issuer), brokertest.Octohub(issuer))},
		hmac:   hmacSecret(),
	}
	h.login = h.broker.Serve(t)
	h.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.next.Load()).ServeHTTP(w, r) }))
	t.Cleanup(h.web.Close)
	return h
}

// replica adds one with a signing key of its own, over this pool, with the HMAC
// secret of the house or with these, newest first.
func (h *house) replica(pool *pgxpool.Pool, secrets ...string) *app.Server {
	h.t.Helper()
	env := map[string]string{"AUTHSERVER_SIGNING": signingKeyPEM(h.t), "AUTHSERVER_HMAC": h.hmac}
	resources := deployment(h.t, issuer)
	if len(secrets) > 0 {
		var refs []string
		for i, s := range secrets {
			env["AUTHSERVER_HMAC"+strconv.Itoa(i)] = s
			refs = append(refs, "{name: authserver, key: hmac"+strconv.Itoa(i)+"}")
		}
		resources = deployment(h.t, issuer, replacing("{name: authserver, key: hmac}", strings.Join(refs, ", ")))
	}
	tel := telemetry.Discard()
	var err error
	tel.Logger, err = telemetry.NewLogger(h.logs, "json", nil)
	h.must(err)
	flags := &app.Flags{
		RegistrationsPerMinute: 600, RegistrationBurst: 600, LoginsPerMinute: 600, LoginBurst: 600, RefreshGrace: time.Minute, KeyPublishDelay: 10 * time.Minute,
		UnusedClients: time.Hour, IdleClients: time.Hour,
	}
	flags.DrainTimeout = time.Second
	server, err := app.New(app.Config{
		Flags: flags, Deployment: resources, Database: pool, Broker: h.login, Telemetry: tel,
		Secrets: &secret.Resolver{LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }},
	})
	h.must(err)
	h.must(server.Keys.Publish(h.t.Context()))
	h.use(server)
	return server
}

func (h *house) use(s *app.Server) {
	h.server = s
	h.next.Store(&s.Handler)
}

func TestEachRequestOfALoginMayReachAnotherReplica(t *testing.T) {
	t.Parallel()
	h := newHouse(t, pgtest.New(t, store.Migrations()))
	one, two := h.replica(h.pool), h.replica(h.pool)
	h.must(one.Keys.Publish(t.Context())) // it looks now and then

	h.use(one)
	c, b := h.client(), h.browser()
	consent := b.get(c.query())
	h.use(two)
	p := b.answer(consent, "approve")
	h.use(one)
	p = b.get(h.broker.SignIn(t, p.location, "alice"))
	h.use(two)
	p = b.get(h.broker.SignIn(t, p.location, "alice"))
	code := h.clientAnswer(p.location).Get("code")

	h.use(one)
	first := c.redeem(code)
	h.use(two)
	second := c.refresh(first.RefreshToken)
	h.use(one)
	repeated := c.refresh(first.RefreshToken)
	if first.status != http.StatusOK || second.status != http.StatusOK || repeated.RefreshToken != second.RefreshToken {
		t.Fatalf("tokens: %+v, %+v, %+v", first, second, repeated)
	}
	kids := map[string]bool{}
	for _, replica := range []*app.Server{one, two} {
		h.use(replica)
		var jwks jose.JSONWebKeySet
		h.must(json.Unmarshal([]byte(h.browser().get("/oauth/jwks").body), &jwks))
		if len(jwks.Keys) != 2 {
			t.Errorf("%d keys are published, want both replicas'", len(jwks.Keys))
		}
		for _, token := range []string{first.AccessToken, second.AccessToken} {
			_, claims := h.verified(token)
			if claims["sub"] != "user-alice" {
				t.Errorf("claims %v", claims)
			}
			parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
			h.must(err)
			kids[parsed.Signatures[0].Protected.KeyID] = true
			wantStatus(t, c.post("/oauth/introspect", url.Values{"token": {token}}), http.StatusOK, `"active":true`)
		}
	}
	if len(kids) != 2 {
		t.Error("both replicas have signed with the same key: nothing was shown")
	}
	h.use(two)
	if got := c.redeem(code); got.Error != "invalid_grant" {
		t.Errorf("a code that the other replica redeemed: %+v", got)
	}
	h.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CODE_REPLAYED)
	h.use(one)
	if got := c.refresh(second.RefreshToken); got.Error != "invalid_grant" {
		t.Errorf("a session that the other replica ended: %+v", got)
	}
}

// made is what a login leaves at each of its steps, of logins of their own.
type made struct {
	h                    *house
	asks, walks, returns *client // with a consent page, a leg under way, a code
	browser              *browser
	consent              page
	callback, code       string
	connected            *client
	refresh              string
}

// make begins logins at the replica that is in use.
func (h *house) make() *made {
	h.t.Helper()
	m := &made{h: h, asks: h.client(), walks: h.client(), returns: h.client(), browser: h.browser(), connected: h.client()}
	m.consent = m.browser.get(m.asks.query())
	m.callback = h.broker.SignIn(h.t, m.walks.approve(m.browser), "alice")
	m.code = m.returns.login(m.browser)
	m.refresh = m.connected.redeem(m.connected.login(m.browser)).RefreshToken
	return m
}

// works checks that all of it is good at the replica that is in use.
func (m *made) works() {
	h := m.h
	h.t.Helper()
	finish := func(c *client, leg page) {
		h.t.Helper()
		wantStatus(h.t, leg, http.StatusSeeOther)
		_, last := h.walk(m.browser, leg.location)
		if got := c.redeem(h.clientAnswer(last).Get("code")); got.status != http.StatusOK {
			h.t.Errorf("the login's end: %+v", got)
		}
	}
	finish(m.asks, m.browser.answer(m.consent, "approve"))
	finish(m.walks, m.browser.get(m.callback))
	if got := m.returns.redeem(m.code); got.status != http.StatusOK {
		h.t.Errorf("the code: %+v", got)
	}
	got := m.connected.refresh(m.refresh)
	if again := m.connected.refresh(m.refresh); got.status != http.StatusOK || again.RefreshToken != got.RefreshToken {
		h.t.Errorf("the refresh token: %+v, again %+v", got, again)
	}
}

// refused checks that none of it is good at the replica that is in use.
func (m *made) refused() {
	h := m.h
	h.t.Helper()
	wantStatus(h.t, m.browser.answer(m.consent, "approve"), http.StatusForbidden, "This form is not valid")
	before := h.broker.Calls("RedeemCode")
	wantStatus(h.t, m.browser.get(m.callback), http.StatusInternalServerError, "Something went wrong")
	if h.broker.Calls("RedeemCode") != before {
		h.t.Error("a leg that cannot be opened went to the broker")
	}
	if got := m.returns.redeem(m.code); got.Error != "invalid_grant" {
		h.t.Errorf("the code: %+v", got)
	}
	if got := m.connected.refresh(m.refresh); got.Error != "invalid_grant" {
		h.t.Errorf("the refresh token: %+v", got)
	}
}

func TestNobodyLosesALoginWhileTheHMACSecretIsChanged(t *testing.T) {
	t.Parallel()
	h := newHouse(t, pgtest.New(t, store.Migrations()))
	old, next := hmacSecret(), hmacSecret()
	for _, step := range []struct{ from, to []string }{ // both ways: replicas are replaced one after another
		{[]string{old}, []string{old, next}},
		{[]string{old, next}, []string{next, old}},
		{[]string{next, old}, []string{next}},
	} {
		before, after := h.replica(h.pool, step.from...), h.replica(h.pool, step.to...)
		h.use(before)
		m := h.make()
		h.use(after)
		m.works()
		m = h.make()
		h.use(before)
		m.works()
	}

	// What was made with a secret is worth nothing to who has another one only.
	both, oldOnly := h.replica(h.pool, next, old), h.replica(h.pool, old)
	h.use(oldOnly)
	m := h.make()
	h.use(both)
	m.works()
	m = h.make()
	h.use(oldOnly)
	m.refused()
	h.use(both)
	if got := m.returns.redeem(m.code); got.status != http.StatusOK {
		t.Errorf("the refusal has spent the code: %+v", got)
	}
	if got := m.connected.refresh(m.refresh); got.status != http.StatusOK {
		t.Errorf("the refusal has spent the refresh token: %+v", got)
	}
	h.settle()
	if ended := h.broker.Sessions("ended"); len(ended) != 0 {
		t.Errorf("%d sessions were ended", len(ended))
	}
}
