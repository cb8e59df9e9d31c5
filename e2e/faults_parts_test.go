package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"chatelaine.dev/examples/journey"
)

// outage is a part that is away or does not do its work, and how everybody notices.
type outage struct {
	name string
	// strike breaks the part, and returns what mends it.
	strike func(t *testing.T, h *house) (mend func())
	// notReady has what /readyz of a service says meanwhile; the others stay ready.
	notReady map[string]string
	// callReason is the reason of the error that an MCP client gets, with status
	// 503; empty when tools go on working.
	callReason string
	// login is what a person sees who begins one: on the page, or in the redirect to the client.
	login string
	// logs has what a line of a service's log contains.
	logs map[string][]string
	// moved are counters that say it: the service, the metric, its labels.
	moved [][]string
	// unwatched is whether the gateway's watch of ended sessions is broken.
	unwatched bool
}

const (
	brokerUnavailable = "BROKER_UNAVAILABLE"
	pageUnavailable   = "Not available at the moment"
)

// outages strike a house in which people are logged in. Each is mended in the end,
// and nothing is restarted for that but what was broken.
var outages = []outage{
	{
		name: "Postgres is killed",
		strike: func(t *testing.T, h *house) func() {
			h.killPostgres(t)
			return func() { h.startPostgres(t) }
		},
		notReady:   map[string]string{"authserver": "the database is not available", "tokenbroker": "the database is not available"},
		callReason: brokerUnavailable, login: pageUnavailable, unwatched: true,
		logs: map[string][]string{
			"authserver":  {`"msg":"error page"`, `"reason":"database_unavailable"`},
			"tokenbroker": {`"msg":"the event log cannot be read, watchers hear nothing until it can"`, `"reason":"database_unavailable"`},
			"gateway":     {`"msg":"mcp request"`, `"reason":"BROKER_UNAVAILABLE"`},
		},
		moved: [][]string{
			{"tokenbroker", "rpc_server_call_duration_seconds_count", "GetCredential", `"UNAVAILABLE"`},
			{"authserver", "http_server_request_duration_seconds_count", `http_route="/oauth/token"`, `"503"`},
			{"gateway", "chatelaine_gateway_requests_total", `outcome="failed"`},
		},
	},
	{
		name: "Postgres does not answer",
		strike: func(t *testing.T, h *house) func() {
			return h.freezePostgres(t)
		},
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
		name: "Postgres takes no more connections",
		strike: func(t *testing.T, h *house) func() {
			h.sql(
				t, `ALTER ROLE tokenbroker CONNECTION LIMIT 0`, `ALTER ROLE authserver CONNECTION LIMIT 0`,
				`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('authserver', 'tokenbroker')`,
			)
			return func() {
				h.sql(t, `ALTER ROLE tokenbroker CONNECTION LIMIT -1`, `ALTER ROLE authserver CONNECTION LIMIT -1`)
			}
		},
		notReady:   map[string]string{"authserver": "takes no more connections", "tokenbroker": "takes no more connections"},
		callReason: brokerUnavailable, login: pageUnavailable, unwatched: true,
		logs: map[string][]string{
			"authserver":  {`"msg":"readiness check fails"`, "raise its limit"},
			"tokenbroker": {`"msg":"readiness check fails"`, "lower --database-max-conns"},
		},
		moved: [][]string{
			{"tokenbroker", "rpc_server_call_duration_seconds_count", "GetCredential", `"UNAVAILABLE"`},
			{"gateway", "chatelaine_gateway_requests_total", `outcome="failed"`},
		},
	},
	{
		// The server says what it says when its disk is full. That it may end itself
		// then, because it cannot write its journal, is the first of these.
		name: "Postgres cannot write",
		strike: func(t *testing.T, h *house) func() {
			h.sql(t, diskFull...)
			return func() { h.sql(t, `DROP FUNCTION public.no_space() CASCADE`) }
		},
		login: pageUnavailable,
		logs: map[string][]string{
			"authserver":  {`"msg":"error page"`, "No space left on device"},
			"tokenbroker": {`"msg":"call failed"`, "TouchSession", "No space left on device"},
		},
		moved: [][]string{
			{"tokenbroker", "rpc_server_call_duration_seconds_count", "TouchSession", `"UNAVAILABLE"`},
			{"authserver", "http_server_request_duration_seconds_count", `http_route="/oauth/token"`, `"503"`},
		},
	},
	{
		name: "the token broker is down",
		strike: func(t *testing.T, h *house) func() {
			h.stop(t, "tokenbroker")
			return func() { h.start(t, "tokenbroker") }
		},
		notReady:   map[string]string{"tokenbroker": "no answer"},
		callReason: brokerUnavailable, login: "the+token+broker+cannot+be+reached", unwatched: true,
		logs: map[string][]string{
			"authserver": {`"msg":"a chain could not begin: the providers are not known"`},
			"gateway":    {`"msg":"the watch of sessions is broken, cached credentials will be confirmed"`, "the broker is stopping"},
		},
		moved: [][]string{
			{"gateway", "rpc_client_call_duration_seconds_count", "GetCredential", `"UNAVAILABLE"`},
			{"gateway", "chatelaine_gateway_requests_total", `outcome="failed"`},
		},
	},
	{
		name: "the token broker does not answer",
		strike: func(t *testing.T, h *house) func() {
			return freeze(t, h.pid(t, "tokenbroker"))
		},
		notReady:   map[string]string{"tokenbroker": "no answer"},
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
}

// diskFull makes every write fail as it does then (SQLSTATE 53100).
var diskFull = []string{
	`CREATE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	RAISE EXCEPTION 'could not extend file "base/5/16402": No space left on device' USING ERRCODE = 'disk_full', HINT = 'Check free disk space.'; END $$`,
	`DO $$ DECLARE r record; BEGIN FOR r IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('authserver', 'tokenbroker') LOOP
	EXECUTE format('CREATE TRIGGER no_space BEFORE INSERT OR UPDATE ON %I.%I FOR EACH ROW EXECUTE FUNCTION public.no_space()', r.schemaname, r.tablename);
	END LOOP; END $$`,
}

func TestEveryOutageIsSaidAndMendsItself(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	h.works(t, login, p)
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) { h.suffer(t, o, login, p) })
		if t.Failed() {
			return // a house that did not mend tells nothing of the next outage
		}
	}
}

func (h *house) suffer(t *testing.T, o outage, login *journey.Login, p person) {
	log := h.notebook(t)
	moved := make([]func(), 0, len(o.moved))
	for _, m := range o.moved {
		moved = append(moved, h.counter(t, m[0], m[1], m[2:]...))
	}
	mend := o.strike(t, h)

	if o.callReason == "" {
		h.works(t, login, p)
	} else {
		eventually(t, func() string { // what is cached may be good for some seconds
			a := h.call(t, login.Token.AccessToken, "repos_whoami")
			if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, `"reason":"`+o.callReason+`"`) {
				return "a call answers " + a.String()
			}
			return ""
		})
	}
	if a := h.refresh(t, login); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, `"temporarily_unavailable"`) || a.Header.Get("Retry-After") == "" {
		t.Errorf("a refresh answers %s, Retry-After %q", a, a.Header.Get("Retry-After"))
	}
	if a := h.page(t, login.Client); !strings.Contains(a.Body, o.login) {
		t.Errorf("who begins a login sees %s, want %q", a, o.login)
	}
	h.expectReady(t, o.notReady)
	for service, parts := range o.logs {
		log.any(t, service, parts...)
	}
	if o.unwatched {
		h.expectMetric(t, 0, "gateway", "chatelaine_gateway_session_watch_fresh")
	}

	mend()
	h.expectReady(t, nil)
	h.works(t, login, p)
	for _, m := range moved { // a frozen service shows its metrics only now
		m()
	}
	h.expectMetric(t, 1, "gateway", "chatelaine_gateway_session_watch_fresh")
	h.renew(t, login)
	if a := h.page(t, login.Client); a.Status != http.StatusOK {
		t.Errorf("who begins a login afterwards sees %s", a)
	}
}

// renew uses the refresh token, which an outage must not have used up.
func (h *house) renew(t *testing.T, login *journey.Login) {
	t.Helper()
	login.Token.AccessToken, login.Token.RefreshToken = h.tokens(t, h.refresh(t, login))
}

// tokens are those of an answer to a refresh.
func (h *house) tokens(t *testing.T, a answer) (access, refresh string) {
	t.Helper()
	var token struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(a.Body), &token); err != nil || a.Status != http.StatusOK || token.RefreshToken == "" {
		t.Fatalf("the refresh token no longer works: %s", a)
	}
	return token.AccessToken, token.RefreshToken
}

// TestCallsGoOnWithoutTheAuthorizationServer: with keys in memory, nobody needs it.
func TestCallsGoOnWithoutTheAuthorizationServer(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	h.works(t, login, p)
	h.stop(t, "authserver")
	h.expectReady(t, map[string]string{"authserver": "no answer"})
	h.works(t, login, p)
	// The gateway's clients are told where they come from, though they cannot get there.
	if a := h.call(t, "nonsense", "repos_whoami"); a.Status != http.StatusUnauthorized || !strings.Contains(a.Header.Get("WWW-Authenticate"), "resource_metadata=") {
		t.Errorf("a wrong token answers %s", a)
	}
	h.start(t, "authserver")
	h.expectReady(t, nil)
	h.renew(t, login)

	// A gateway that never met it cannot judge a token, and says that it is not the token's fault.
	h.stop(t, "authserver", "gateway")
	log := h.notebook(t)
	h.start(t, "gateway")
	moved := h.counter(t, "gateway", "http_server_request_duration_seconds_count", `http_route="/mcp"`, `"503"`)
	if a := h.call(t, login.Token.AccessToken, "repos_whoami"); a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("without the keys of the issuer a call answers %s, Retry-After %q", a, a.Header.Get("Retry-After"))
	}
	log.any(t, "gateway", `"msg":"request"`, `"status":503`)
	moved()
	h.start(t, "authserver")
	h.works(t, login, p)
}

// TestServicesStartInEveryOrder: nobody waits for anybody, and Postgres comes last.
func TestServicesStartInEveryOrder(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	for _, order := range [][]string{
		{"authserver", "tokenbroker", "gateway"},
		{"authserver", "gateway", "tokenbroker"},
		{"tokenbroker", "authserver", "gateway"},
		{"tokenbroker", "gateway", "authserver"},
		{"gateway", "authserver", "tokenbroker"},
		{"gateway", "tokenbroker", "authserver"},
	} {
		t.Run(strings.Join(order, ", "), func(t *testing.T) {
			h.stop(t, order...)
			h.killPostgres(t)
			ready := make(chan error, len(order))
			for _, service := range order {
				go func() { ready <- h.stack.StartProcess(t.Context(), service) }()
				eventually(t, func() string { // the next one starts when this one serves
					if h.readiness(t, service) == "no answer" {
						return service + " does not serve"
					}
					return ""
				})
			}
			log := h.notebook(t)
			log.from = map[string]int64{} // since the start
			h.expectReady(t, map[string]string{"authserver": "the database is not available", "tokenbroker": "the database is not available"})
			log.any(t, "authserver", `"msg":"readiness check fails"`, `"reason":"database_unavailable"`)
			log.any(t, "tokenbroker", `"msg":"readiness check fails"`, `"reason":"database_unavailable"`)
			moved := h.counter(t, "authserver", "http_server_request_duration_seconds_count", `http_route="/oauth/authorize"`, `"503"`)
			if a := h.page(t, login.Client); a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, pageUnavailable) {
				t.Errorf("who begins a login sees %s", a)
			}
			moved()

			h.startPostgres(t)
			for range order {
				if err := <-ready; err != nil {
					t.Fatal(err)
				}
			}
			h.works(t, login, p)
		})
	}
}

// TestAProviderThatIsAwayAtTheStartIsFoundLater: discovery is asked for when needed.
func TestAProviderThatIsAwayAtTheStartIsFoundLater(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	h.stop(t, "tokenbroker", "authserver", "corp")
	h.start(t, "tokenbroker", "authserver") // ready all the same: others can be served
	log := h.notebook(t)
	moved := h.counter(t, "tokenbroker", "chatelaine_tokenbroker_upstream_request_duration_seconds_count", `server="corp"`, `outcome="unavailable"`)

	eventually(t, func() string {
		if a := h.call(t, login.Token.AccessToken, "repos_whoami"); a.Status != http.StatusOK || !strings.Contains(a.Body, p.Login) {
			return "the other provider's backend answers " + a.String()
		}
		return ""
	})
	if err := walk(t, p, login.Client); err == nil || !strings.Contains(err.Error(), "corp") {
		t.Errorf("who logs in is told %v, want corp named", err)
	}
	log.any(t, "tokenbroker", `"msg":"nobody can log in at a provider"`, `"provider":"corp"`)
	moved()

	h.start(t, "corp")
	h.works(t, login, p)
	eventually(t, func() string { // what was found out a moment ago is believed for some seconds
		if err := walk(t, p, login.Client); err != nil {
			return "a login afterwards: " + err.Error()
		}
		return ""
	})
}
