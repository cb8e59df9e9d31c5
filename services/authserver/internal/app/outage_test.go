package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// wire is the way to a Postgres or a broker, which can be cut.
type wire struct {
	behind string // HOST:PORT or a Unix socket

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

// newWire returns a wire and the address of our end.
func newWire(t *testing.T, behind string) (*wire, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{behind: behind, conns: map[net.Conn]bool{}}
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			carrying.Go(func() { w.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		w.cut()
		carrying.Wait()
	})
	return w, ln.Addr().String()
}

// wired returns a pool whose connections go over a wire to the database at u.
func wired(t *testing.T, u secret.String) (*pgxpool.Pool, *wire) {
	t.Helper()
	behind, err := url.Parse(u.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	address, q := behind.Host, behind.Query()
	if q.Get("host") != "" {
		address = filepath.Join(q.Get("host"), ".s.PGSQL."+q.Get("port"))
	}
	front := url.URL{Scheme: "postgres", User: behind.User, Path: behind.Path, RawQuery: "sslmode=disable"}
	if user := q.Get("user"); user != "" {
		front.User = url.User(user)
	}
	w, host := newWire(t, address)
	front.Host = host
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: secret.New(front.String()), Application: "wired", MaxConns: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, w
}

func (w *wire) carry(conn net.Conn) {
	defer conn.Close()
	network := "unix"
	if !strings.HasPrefix(w.behind, "/") {
		network = "tcp"
	}
	behind, err := net.Dial(network, w.behind)
	if err != nil {
		return
	}
	defer behind.Close()
	w.mu.Lock()
	if w.down {
		w.mu.Unlock()
		return
	}
	w.conns[conn], w.conns[behind] = true, true
	w.mu.Unlock()
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{conn, behind}, {behind, conn}} {
		ways.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // ends when it is cut
			_ = way[0].Close()
		})
	}
	ways.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, conn)
	delete(w.conns, behind)
}

// cut breaks every connection, and those that are tried from now on.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for conn := range w.conns {
		_ = conn.Close()
	}
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// outage is a house whose one replica has a database that can be cut off; the test
// itself can still look into it.
func outage(t *testing.T) (*house, *wire) {
	t.Helper()
	u := pgtest.URL(t, store.Migrations())
	direct, err := postgres.Open(t.Context(), postgres.Config{URL: u, Application: "test", MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	h := newHouse(t, direct)
	pool, w := wired(t, u)
	h.replica(pool)
	return h, w
}

func TestALoginGoesOnWhenTheDatabaseIsBack(t *testing.T) {
	t.Parallel()
	h, w := outage(t)
	c, b := h.client(), h.browser()
	// without does what a person does, without a database and then, by reloading, with it.
	without := func(step func() page) page {
		t.Helper()
		w.cut()
		p := step()
		wantStatus(t, p, http.StatusServiceUnavailable, "reload this page", "Reference")
		if p.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		w.mend()
		return step()
	}
	consent := without(func() page { return b.get(c.query()) })
	p := without(func() page { return b.answer(consent, "approve") })
	for range 2 {
		wantStatus(t, p, http.StatusSeeOther)
		callback := h.broker.SignIn(t, p.location, "alice")
		p = without(func() page { return b.get(callback) })
	}
	if n := h.broker.Calls("RedeemCode"); n != 2 {
		t.Errorf("%d redemptions, want one for each leg", n)
	}
	code := h.clientAnswer(p.location).Get("code")

	refused := func(got tokens) {
		t.Helper()
		if got.status != http.StatusServiceUnavailable || got.Error != "temporarily_unavailable" || got.header.Get("Retry-After") == "" ||
			!strings.Contains(got.Description, "(reference ") {
			t.Errorf("without a database: %+v", got)
		}
	}
	w.cut()
	refused(c.redeem(code))
	w.mend()
	h.broker.During("ActivateSession", w.cut)
	refused(c.redeem(code))
	w.mend()
	first := c.redeem(code)
	if first.status != http.StatusOK {
		t.Fatalf("the code was lost: %+v", first)
	}
	w.cut()
	refused(c.refresh(first.RefreshToken))
	w.mend()
	h.broker.During("TouchSession", w.cut)
	refused(c.refresh(first.RefreshToken))
	w.mend()
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("the refresh token was lost: %+v", got)
	}
}

func TestALoginGoesOnWhenTheBrokerIsBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t, pgtest.New(t, store.Migrations()))
	ca := rpctest.NewCA(t)
	w, address := newWire(t, h.broker.Listen(t, ca))
	h.login = brokerv1.NewLoginServiceClient(ca.Dial(address, "tokenbroker", nil, "authserver"))
	h.replica(h.pool)
	c, b := h.client(), h.browser()
	// without does a step without a broker, and again until the connection is back.
	without := func(step func() page) page {
		t.Helper()
		w.cut()
		began := time.Now()
		p := step()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v to say that the broker is gone", took)
		}
		wantStatus(t, p, http.StatusServiceUnavailable, "")
		w.mend()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			if p = step(); p.status != http.StatusServiceUnavailable {
				break
			}
		}
		return p
	}
	consent := b.get(c.query())
	p := without(func() page { return b.answer(consent, "approve") })
	callback := h.broker.SignIn(t, p.location, "alice")
	p = without(func() page { return b.get(callback) })
	for deadline := time.Now().Add(20 * time.Second); !strings.HasPrefix(p.location, redirect) && time.Now().Before(deadline); {
		// The first of them may still find no connection, and are then walked anew.
		callback := h.broker.SignIn(t, p.location, "alice")
		if p = b.get(callback); p.status == http.StatusServiceUnavailable {
			p = b.get(callback)
		}
	}
	code := h.clientAnswer(p.location).Get("code")
	var got tokens
	read := func(p page) page {
		h.must(json.Unmarshal([]byte(p.body), &got))
		return p
	}
	without(func() page { return read(c.post("/oauth/token", c.redemption(code))) })
	if got.RefreshToken == "" {
		t.Fatalf("the code was lost: %+v", got)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.RefreshToken}}
	got = tokens{}
	without(func() page { return read(c.post("/oauth/token", refresh)) })
	if got.RefreshToken == "" {
		t.Errorf("the refresh token was lost: %+v", got)
	}
	w.cut() // revoked while the broker is gone: it hears of it later
	wantStatus(t, c.post("/oauth/revoke", url.Values{"token": {got.RefreshToken}}), http.StatusOK)
	h.settle()
	w.mend()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && len(h.broker.Sessions("ended")) == 0; {
		h.exec(`UPDATE authserver.session_ends SET next_attempt_at = now()`)
		h.settle()
	}
	h.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED)
}

func TestAShortOutageDuringALegIsNotNoticed(t *testing.T) {
	t.Parallel()
	h, w := outage(t)
	c, b := h.client(), h.browser()
	callback := h.broker.SignIn(t, c.approve(b), "alice")
	h.broker.During("RedeemCode", func() {
		w.cut()
		time.AfterFunc(500*time.Millisecond, w.mend)
	})
	if p := b.get(callback); !strings.HasPrefix(p.location, "https://octohub.example/") {
		t.Errorf("%d %s", p.status, p.body)
	}
}

func TestALegIsWalkedAnewWhenItsResultWasLost(t *testing.T) {
	t.Parallel()
	h, w := outage(t)
	c, b := h.client(), h.browser()
	callback := h.broker.SignIn(t, c.approve(b), "alice")
	h.broker.During("RedeemCode", w.cut) // the code is spent, and nobody can note what came of it
	wantStatus(t, b.get(callback), http.StatusServiceUnavailable, "reload this page")
	w.mend()
	h.exec(`UPDATE authserver.legs SET retry_at = now()`) // in half a minute
	p := b.get(callback)
	for range 2 {
		wantStatus(t, p, http.StatusSeeOther)
		p = b.get(h.broker.SignIn(t, p.location, "alice"))
	}
	if got := c.redeem(h.clientAnswer(p.location).Get("code")); got.status != http.StatusOK {
		t.Errorf("tokens %+v", got)
	}
	if n := h.broker.Calls("RedeemCode"); n != 3 {
		t.Errorf("%d redemptions, want three: no code was sent twice", n)
	}
}

func TestABrowserThatGoesAwayDuringALegLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b := s.client(), s.browser()
	consent := b.get(c.query())
	callback := s.broker.SignIn(t, b.answer(consent, "approve").location, "alice")
	ctx, leave := context.WithCancel(t.Context())
	s.broker.During("RedeemCode", leave)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.local(callback), nil)
	s.must(err)
	if response, err := b.client.Do(r); err == nil {
		_ = response.Body.Close()
		t.Fatal("the browser has waited")
	}
	s.web.Close() // when what it does has ended
	s.web = httptest.NewServer(s.server.Handler)
	t.Cleanup(s.web.Close)
	p := b.answer(consent, "approve") // going back, and on
	if !strings.HasPrefix(p.location, "https://octohub.example/") {
		t.Fatalf("the first leg is lost: %d %s", p.status, p.location)
	}
	p = b.get(s.broker.SignIn(t, p.location, "alice"))
	if got := c.redeem(s.clientAnswer(p.location).Get("code")); got.status != http.StatusOK {
		t.Errorf("tokens %+v", got)
	}
}
