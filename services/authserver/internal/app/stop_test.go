package app_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/brokertest"
	"chatelaine.dev/services/authserver/internal/store"
)

// running is a replica as it is deployed, without the process.
type running struct {
	public, admin string
	stop          context.CancelFunc // what a signal does
	done          chan error
}

// serve starts a replica and waits until it is ready.
func serve(t *testing.T, edit func(f *app.Flags)) *running {
	t.Helper()
	flags := &app.Flags{
		PublicAddress: freeAddress(t), GRPCAddress: freeAddress(t),
		RegistrationsPerMinute: 600, RegistrationBurst: 600, LoginsPerMinute: 600, LoginBurst: 600, RefreshGrace: time.Minute, UnusedClients: time.Hour, IdleClients: time.Hour,
	}
	flags.DrainTimeout = 20 * time.Second
	flags.Path = writeResources(t, func(s string) string { return s })
	flags.AdminAddress = freeAddress(t)
	flags.LogLevel = 12
	edit(flags)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{public: "http://" + flags.PublicAddress, admin: "http://" + flags.AdminAddress, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- app.Serve(ctx, flags) }()
	t.Cleanup(cancel)
	waitFor(t, r.admin+"/readyz", http.StatusOK, `"status":"ready"`)
	return r
}

func TestAStopInTheMiddleOfALoginLosesNothing(t *testing.T) {
	ca := rpctest.NewCA(t)
	files := ca.Files("authserver")
	t.Setenv("AUTHSERVER_SIGNING", signingKeyPEM(t))
	t.Setenv("AUTHSERVER_HMAC", base64.StdEncoding.EncodeToString([]byte(rand.Text()+rand.Text())))
	u := pgtest.URL(t, store.Migrations())
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: u, Application: "test", MaxConns: 4})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	t.Cleanup(pool.Close)
	s := &system{t: t, pool: pool, logs: &lockedBuffer{}, broker: brokertest.New(brokertest.Corp(issuer), brokertest.Octohub(issuer))}
	broker := s.broker.Listen(t, ca)
	start := func() *running {
		return serve(t, func(f *app.Flags) {
			f.Database = databaseFlags()
			f.BrokerAddress, f.DatabaseURL = broker, u
			f.TLSCert, f.TLSKey, f.TLSCA = files.Cert, files.Key, files.CA
		})
	}
	one, two := start(), start()
	to := func(r *running) { // as a load balancer does
		target, err := url.Parse(r.public)
		s.must(err)
		s.web = httptest.NewServer(httputil.NewSingleHostReverseProxy(target))
		t.Cleanup(s.web.Close)
	}

	to(one)
	c, b := s.client(), s.browser()
	callback := s.broker.SignIn(t, c.approve(b), "alice")
	inside, release := make(chan struct{}), make(chan struct{})
	s.broker.During("RedeemCode", func() { close(inside); <-release })
	answered := make(chan page, 1)
	go func() { answered <- b.get(callback) }()
	<-inside
	one.stop()
	notReady(t, one.admin+"/readyz")
	waitGone(t, one.public+"/oauth/jwks")
	select {
	case p := <-answered:
		t.Fatalf("the stop has cut the callback off: %d %s", p.status, p.body)
	case err := <-one.done:
		t.Fatalf("the process has ended during the callback: %v", err)
	default:
	}
	close(release)
	p := <-answered
	wantStatus(t, p, http.StatusSeeOther)
	select {
	case err := <-one.done:
		if err != nil {
			t.Errorf("the stop: %s", fault.Detail(err))
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the process has not ended")
	}

	to(two)
	p = b.get(s.broker.SignIn(t, p.location, "alice"))
	got := c.redeem(s.clientAnswer(p.location).Get("code"))
	if got.status != http.StatusOK {
		t.Fatalf("tokens %+v", got)
	}
	for _, series := range []string{
		`chatelaine_authserver_logins_finished_total{outcome="completed"} 1`, `chatelaine_authserver_logins_pending{phase="legs"} 0`,
		`chatelaine_authserver_legs_total{outcome="linked",provider="octohub"} 1`, "chatelaine_authserver_outbox_length 0",
		`chatelaine_authserver_tokens_total{grant_type="authorization_code",outcome="issued"} 1`,
	} {
		waitFor(t, two.admin+"/metrics", http.StatusOK, series)
	}
	two.stop()
	if err := <-two.done; err != nil {
		t.Errorf("the stop: %s", fault.Detail(err))
	}
	three := start() // the deployment is back
	to(three)
	if got := c.refresh(got.RefreshToken); got.status != http.StatusOK {
		t.Errorf("after a restart: %+v", got)
	}
	three.stop()
	if err := <-three.done; err != nil {
		t.Errorf("the stop: %s", fault.Detail(err))
	}
}

// notReady waits until a probe says that no requests should be sent.
func notReady(t *testing.T, url string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(url)
		if err != nil {
			return
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusServiceUnavailable {
			return
		}
	}
	t.Fatal("it is still ready")
}

// waitGone waits until new connections are refused.
func waitGone(t *testing.T, url string) {
	t.Helper()
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := fresh.Get(url)
		if err != nil {
			return
		}
		_ = response.Body.Close()
	}
	t.Fatal("it still takes requests")
}
