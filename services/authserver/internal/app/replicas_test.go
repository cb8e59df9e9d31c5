package app_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
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

func newHouse(t *testing.T, pool *pgxpool.Pool) *house {
	t.Helper()
	h := &house{
		system: &system{t: t, pool: pool, logs: &lockedBuffer{}, broker: brokertest.New(brokertest.Corp(issuer), brokertest.Octohub(issuer))},
		hmac:   base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())),
	}
	h.login = h.broker.Serve(t)
	h.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.next.Load()).ServeHTTP(w, r) }))
	t.Cleanup(h.web.Close)
	return h
}

// replica adds one with a signing key of its own, over this pool.
func (h *house) replica(pool *pgxpool.Pool) *app.Server {
	h.t.Helper()
	env := map[string]string{"AUTHSERVER_SIGNING": signingKeyPEM(h.t), "AUTHSERVER_HMAC": h.hmac}
	tel := telemetry.Discard()
	var err error
	tel.Logger, err = telemetry.NewLogger(h.logs, "json", nil)
	h.must(err)
	flags := &app.Flags{
		RegistrationsPerMinute: 600, RegistrationBurst: 600, RefreshGrace: time.Minute, KeyPublishDelay: 10 * time.Minute,
		UnusedClients: time.Hour, IdleClients: time.Hour,
	}
	flags.DrainTimeout = time.Second
	server, err := app.New(app.Config{
		Flags: flags, Deployment: deployment(h.t, issuer), Database: pool, Broker: h.login, Telemetry: tel,
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
