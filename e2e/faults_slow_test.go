package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/examples/stack"
)

// slowWire carries connections to a server, and what the server says as late as it
// is told to.
type slowWire struct {
	network, target string

	mu     sync.Mutex
	conns  []net.Conn
	delay  time.Duration
	mended chan struct{} // closed when the delay is over
}

// newSlowWire carries what comes to ln, until the test ends.
func newSlowWire(t *testing.T, ln net.Listener, network, target string) *slowWire {
	t.Helper()
	w := &slowWire{network: network, target: target}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go w.carry(conn)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-ended
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.conns {
			_ = c.Close()
		}
	})
	return w
}

func (w *slowWire) carry(client net.Conn) {
	server, err := net.Dial(w.network, w.target)
	if err != nil {
		_ = client.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, client, server)
	w.mu.Unlock()
	go w.pass(server, client, func() {})
	w.pass(client, server, func() {
		w.mu.Lock()
		delay, mended := w.delay, w.mended
		w.mu.Unlock()
		if delay == 0 {
			return
		}
		select {
		case <-time.After(delay): // what is tested, and no wait for something else
		case <-mended:
		}
	})
}

func (w *slowWire) pass(to, from net.Conn, late func()) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		late()
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// slow makes answers late, until the returned function, or the test's end.
func (w *slowWire) slow(t *testing.T, by time.Duration) (mend func()) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	mended := make(chan struct{})
	w.delay, w.mended = by, mended
	mend = sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.delay = 0
		close(mended)
	})
	t.Cleanup(mend)
	return mend
}

// wirePostgres puts a wire between the services and their database: under the name
// of the server's socket, which gets another one.
func (h *house) wirePostgres(t *testing.T) *slowWire {
	t.Helper()
	u, err := url.Parse(h.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(u.Query().Get("host"), ".s.PGSQL."+u.Query().Get("port"))
	if err := os.Rename(socket, socket+".real"); err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	w := newSlowWire(t, ln, "unix", socket+".real")
	h.sql(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('authserver', 'tokenbroker')`)
	return w
}

// wireBroker puts a wire between the other services and the broker.
func wireBroker(t *testing.T, cfg *stack.Config) *slowWire {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Args == nil {
		cfg.Args = map[string][]string{}
	}
	for _, service := range []string{"authserver", "gateway"} {
		cfg.Args[service] = append(cfg.Args[service], "--broker-address", ln.Addr().String())
	}
	return newSlowWire(t, ln, "tcp", fmt.Sprintf("127.0.0.1:%d", cfg.Ports.Broker))
}

// lockTables keeps everybody from the services' tables, as a long maintenance would.
func (h *house) lockTables(t *testing.T) (release func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, h.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = conn.Close(ctx) })
	t.Cleanup(release)
	for _, statement := range []string{`BEGIN`, `DO $$ DECLARE r record; BEGIN
		FOR r IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('authserver', 'tokenbroker') AND tablename NOT LIKE 'goose%' LOOP
			EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', r.schemaname, r.tablename);
		END LOOP; END $$`} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	return release
}

// TestWhatIsSlowIsSaidAndMendsItself: parts that answer, too late. The authorization
// server of this house has few connections, which are soon used up.
func TestWhatIsSlowIsSaidAndMendsItself(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	var broker *slowWire
	h := newHouse(t, func(cfg *stack.Config) {
		broker = wireBroker(t, cfg)
		cfg.Args["authserver"] = append(cfg.Args["authserver"], "--database-max-conns", "4")
	})
	postgres := h.wirePostgres(t)
	h.expectReady(t, nil)
	p := h.person()
	login := h.logIn(t, p)
	h.works(t, login, p)
	for _, o := range []outage{
		{
			name:       "Postgres is slow",
			strike:     func(t *testing.T, _ *house) func() { return postgres.slow(t, 12*time.Second) },
			notReady:   map[string]string{"authserver": "no answer within 2s", "tokenbroker": "no answer within 2s"},
			callReason: brokerUnavailable, login: pageUnavailable, unwatched: true,
			logs: map[string][]string{
				"authserver":  {`"msg":"readiness check fails"`, "no answer within 2s"},
				"tokenbroker": {`"msg":"the event log cannot be read, watchers hear nothing until it can"`, `"kind":"timeout"`},
				"gateway":     {`"msg":"the watch of sessions is broken, cached credentials will be confirmed"`},
			},
			moved: [][]string{
				{"gateway", "chatelaine_gateway_requests_total", `outcome="failed"`},
				{"authserver", "http_server_request_duration_seconds_count", `http_route="/oauth/token"`, `"503"`},
			},
		},
		{
			name:       "Postgres is locked",
			strike:     func(t *testing.T, h *house) func() { return h.lockTables(t) },
			callReason: brokerUnavailable, login: pageUnavailable, unwatched: true,
			logs: map[string][]string{
				"authserver":  {`"msg":"request refused"`, `"reason":"database_timeout"`},
				"tokenbroker": {`"msg":"the event log cannot be read, watchers hear nothing until it can"`},
				"gateway":     {`"msg":"the watch of sessions is broken, cached credentials will be confirmed"`},
			},
			moved: [][]string{
				{"gateway", "chatelaine_gateway_requests_total", `outcome="failed"`},
				{"authserver", "chatelaine_authserver_tokens_total", `outcome="temporarily_unavailable"`},
			},
		},
		{
			name:       "the token broker is slow",
			strike:     func(t *testing.T, _ *house) func() { return broker.slow(t, 25*time.Second) },
			callReason: brokerUnavailable, login: "the+token+broker+cannot+be+reached", unwatched: true,
			logs: map[string][]string{
				"authserver": {`"msg":"a chain could not begin: the providers are not known"`},
				"gateway":    {`"msg":"the watch of sessions is broken, cached credentials will be confirmed"`},
			},
			moved: [][]string{
				{"gateway", "chatelaine_gateway_requests_total", `outcome="failed"`},
				{"authserver", "http_server_request_duration_seconds_count", `http_route="/oauth/token"`, `"503"`},
			},
		},
	} {
		t.Run(o.name, func(t *testing.T) { h.suffer(t, o, login, p) })
		if t.Failed() {
			return
		}
	}
	t.Run("the token broker is a little slow", func(t *testing.T) {
		mend := broker.slow(t, 700*time.Millisecond)
		log := h.notebook(t)
		hits := h.counter(t, "gateway", "chatelaine_gateway_credential_requests_total", `cache="hit"`)
		misses := h.counter(t, "gateway", "rpc_client_call_duration_seconds_count", "GetCredential")
		for range 5 { // nobody is asked for what is known
			if a := h.call(t, login.Token.AccessToken, "repos_whoami"); a.Status != http.StatusOK || !strings.Contains(a.Body, p.Login) {
				t.Errorf("a call answers %s", a)
			}
		}
		hits()
		late := h.logIn(t, h.person()) // and who is new waits, and gets in
		if a := h.call(t, late.Token.AccessToken, "repos_whoami"); a.Status != http.StatusOK || a.Took < 700*time.Millisecond {
			t.Errorf("a call that needs the broker answers %s", a)
		}
		misses()
		if lines := log.lines(t, "gateway", `"msg":"the watch of sessions is broken`); len(lines) != 0 {
			t.Errorf("the gateway says %q", lines)
		}
		mend()
		h.works(t, login, p)
	})
	t.Run("all connections of the authorization server are in use", func(t *testing.T) { h.useUpConnections(t) })
	h.works(t, login, p)
	h.renew(t, login)
}

// useUpConnections has more callers than connections, each of whom waits for a lock.
func (h *house) useUpConnections(t *testing.T) {
	const service = "authserver"
	log := h.notebook(t)
	moved := []func(){
		h.counter(t, service, "chatelaine_database_waits_total"),
		h.counter(t, service, "chatelaine_database_wait_duration_seconds_total"),
		h.counter(t, service, "chatelaine_authserver_tokens_total", `outcome="temporarily_unavailable"`),
	}
	gaveUp := h.counter(t, service, "chatelaine_database_waits_given_up_total")
	release := h.lockTables(t)
	const callers = 10
	answers := make(chan answer, callers)
	for range callers {
		go func() {
			a, err := h.post(t.Context(), "/oauth/token", "grant_type=refresh_token&client_id=somebody&refresh_token=something")
			if err != nil {
				a.Body = err.Error()
			}
			answers <- a
		}()
	}
	most := h.metric(t, service, "chatelaine_database_connections_max")
	h.expectMetric(t, most, service, "chatelaine_database_connections", `state="used"`)
	h.expectReady(t, map[string]string{service: "no answer within 2s"}) // its check has to wait for a connection too
	gaveUp()
	refused := 0
	for range callers {
		a := <-answers
		if a.Status == http.StatusServiceUnavailable && strings.Contains(a.Body, `"temporarily_unavailable"`) && a.Header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused != callers {
		t.Errorf("%d of %d callers were asked to come again", refused, callers)
	}
	log.any(t, service, `"msg":"readiness check fails"`, "no answer within 2s")
	log.any(t, service, `"msg":"request refused"`, `"reason":"database_timeout"`)
	for _, m := range moved {
		m()
	}
	release()
	h.expectMetric(t, 0, service, "chatelaine_database_connections", `state="used"`)
	h.expectReady(t, nil)
}
