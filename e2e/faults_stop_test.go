package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// TestAStopInTheMiddleLosesNothing: SIGTERM during a chain, a refresh, and a call.
func TestAStopInTheMiddleLosesNothing(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	ports := h.stack.Ports()

	t.Run("of a chain", func(t *testing.T) {
		p := h.person()
		restarted := 0
		login, err := newClientAt(t, h.stack.MCPURL()).Login(t.Context(), p.browser(t, func(o *browse.Options) {
			o.OnPage = func(page browse.Page) error {
				if page.URL.Host == "localhost:"+fmt.Sprint(ports.Octohub) && restarted == 0 { // the first leg is done
					restarted++
					log := h.notebook(t)
					h.stop(t, services...)
					for _, service := range services {
						log.any(t, service, `"msg":"stopping"`)
					}
					h.start(t, "authserver", "tokenbroker", "gateway")
				}
				return nil
			}
		}))
		if err != nil || restarted != 1 {
			t.Fatalf("%d restarts, %v", restarted, err)
		}
		// Those that were started anew count from nothing: it is they who ended the chain.
		h.expectMetric(t, 1, "authserver", "chatelaine_authserver_logins_finished_total", `outcome="completed"`)
		h.expectMetric(t, 1, "tokenbroker", "chatelaine_tokenbroker_audit_records_total", `action="session.activated"`)
		h.works(t, login, p)
	})

	t.Run("of a refresh", func(t *testing.T) {
		p := h.person()
		login := h.logIn(t, p)
		h.works(t, login, p)
		fault(t, ports.OctohubFaults, map[string]any{"token": map[string]any{"mode": "slow", "delayMs": 2000, "grant": "refresh_token"}})
		fault(t, ports.ReposFaults, map[string]any{"unauthorized": 1}) // so the gateway asks for a fresh one
		before := count(t, ports.OctohubFaults, "refresh_token")
		answered := make(chan answer, 1)
		go func() {
			a, err := h.tool(t.Context(), login.Token.AccessToken, "repos_whoami")
			if err != nil {
				a.Body = err.Error()
			}
			answered <- a
		}()
		eventually(t, func() string {
			if count(t, ports.OctohubFaults, "refresh_token").Requests == before.Requests {
				return "nothing is refreshed"
			}
			return ""
		})
		log := h.notebook(t)
		h.stop(t, "tokenbroker") // returns when it has ended, politely
		log.any(t, "tokenbroker", `"msg":"stopping"`)
		log.any(t, "tokenbroker", `"action":"connection.refreshed","outcome":"success"`)
		// No other broker is there to hand the result out.
		if a := <-answered; a.Status != http.StatusOK && !strings.Contains(a.Body, brokerUnavailable) {
			t.Errorf("the call that waited for it answers %s", a)
		}
		h.start(t, "tokenbroker")
		log.any(t, "gateway", `"msg":"the watch of sessions works again"`)
		h.works(t, login, p)
		if got := count(t, ports.OctohubFaults, "refresh_token"); got.Requests != before.Requests+1 || got.Succeeded != before.Succeeded+1 {
			t.Errorf("octohub counted %+v after %+v: want one refresh, and that it worked", got, before)
		}
	})

	t.Run("of a call", func(t *testing.T) {
		p := h.person()
		login := h.logIn(t, p)
		h.works(t, login, p)
		fault(t, ports.ReposFaults, map[string]any{"delayMs": 1500})
		before := h.metric(t, "gateway", "http_server_active_requests")
		answered := make(chan answer, 1)
		go func() {
			a, err := h.tool(t.Context(), login.Token.AccessToken, "repos_whoami")
			if err != nil {
				a.Body = err.Error()
			}
			answered <- a
		}()
		eventually(t, func() string {
			if h.metric(t, "gateway", "http_server_active_requests") <= before {
				return "the call has not arrived"
			}
			return ""
		})
		log := h.notebook(t)
		h.stop(t, "gateway")
		log.any(t, "gateway", `"msg":"stopping"`)
		log.any(t, "gateway", `"msg":"mcp request"`, `"backend":"repos"`, `"outcome":"ok"`) // the last that this process says of it
		if a := <-answered; a.Status != http.StatusOK || !strings.Contains(a.Body, p.Login) {
			t.Errorf("the call under way answers %s", a)
		}
		h.start(t, "gateway")
		h.works(t, login, p)
	})
}

// TestAStopEndsStreamsAndClientsGoOn: an open stream does not hold up the stop of
// a gateway, which takes new ones neither, and its client comes back afterwards.
func TestAStopEndsStreamsAndClientsGoOn(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	h.works(t, login, p)
	resp, body := rawCall(t, h.stack.MCPURL(), login.Token.AccessToken, initialize)
	id := resp.Header.Get("Mcp-Session-Id")
	if resp.StatusCode != http.StatusOK || id == "" {
		t.Fatalf("initialize: %s %s", resp.Status, body)
	}
	const gauge = "chatelaine_gateway_streams_open"
	if err := h.stream(t, login, id, func(stream io.Reader) {
		h.expectMetric(t, 1, "gateway", gauge)
		// A call that lasts longer keeps the process, so that its metrics can be read.
		fault(t, h.stack.Ports().PayrollFaults, map[string]any{"delayMs": 3000})
		before := h.metric(t, "gateway", "http_server_active_requests")
		answered := make(chan answer, 1)
		go func() {
			a, err := h.tool(t.Context(), login.Token.AccessToken, "payroll_whoami")
			if err != nil {
				a.Body = err.Error()
			}
			answered <- a
		}()
		eventually(t, func() string {
			if h.metric(t, "gateway", "http_server_active_requests") <= before {
				return "the call has not arrived"
			}
			return ""
		})
		log := h.notebook(t)
		if err := syscall.Kill(h.pid(t, "gateway"), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := io.Copy(io.Discard, stream); err != nil {
			t.Errorf("the stream is cut off: %v", err)
		}
		h.expectMetric(t, 0, "gateway", gauge)
		if err := h.stream(t, login, id, func(io.Reader) { t.Error("a gateway that stops opens a stream") }); err == nil {
			t.Error("a gateway that stops takes a request for a stream")
		}
		if a := <-answered; a.Status != http.StatusOK || !strings.Contains(a.Body, p.Name) {
			t.Errorf("the call under way answers %s", a)
		}
		eventually(t, func() string {
			if code, err := h.stack.ExitCode("gateway"); err != nil || code != 0 {
				return fmt.Sprintf("the gateway has not ended with status 0 but %d, %v", code, err)
			}
			return ""
		})
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the stop took %s, longer than --drain-timeout", took)
		}
		log.any(t, "gateway", `"msg":"stopping"`)
		log.any(t, "gateway", `"msg":"mcp request"`, `"method":"stream"`, `"outcome":"ok"`)
	}); err != nil {
		t.Fatal(err)
	}
	h.start(t, "gateway")
	if err := h.stream(t, login, id, func(io.Reader) { h.expectMetric(t, 1, "gateway", gauge) }); err != nil { // the same session
		t.Fatal(err)
	}
	h.expectMetric(t, 0, "gateway", gauge)
	h.works(t, login, p)
}

// stream opens the stream of a session, over a connection of its own; use gets it
// after its first line.
func (h *house) stream(t *testing.T, login *journey.Login, session string, use func(io.Reader)) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.stack.MCPURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"Accept": "text/event-stream", "Authorization": "Bearer " + login.Token.AccessToken,
		"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25",
	} {
		req.Header.Set(k, v)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		return err
	}
	use(lines)
	return nil
}

// TestARestartUnderLoadIsHardlyNoticed: Postgres and broker go away for a moment.
func TestARestartUnderLoadIsHardlyNoticed(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	h.works(t, login, p)
	const fresh = "chatelaine_gateway_session_watch_fresh"
	for name, c := range map[string]struct {
		restart func()
		service string // whose log has the line
		line    []string
	}{
		"the token broker": {
			func() {
				h.stop(t, "tokenbroker")
				h.expectMetric(t, 0, "gateway", fresh)
				h.start(t, "tokenbroker")
			},
			"gateway",
			[]string{`"msg":"the watch of sessions is broken, cached credentials will be confirmed"`, "the broker is stopping"},
		},
		"Postgres": {
			func() {
				h.endPostgres(t, syscall.SIGINT) // as `pg_ctl restart` does
				h.expectMetric(t, 0, "gateway", fresh)
				h.startPostgres(t)
			},
			"tokenbroker",
			[]string{`"msg":"the event log cannot be read, watchers hear nothing until it can"`, `"reason":"database_unavailable"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := h.notebook(t)
			done := make(chan struct{})
			wrong := make(chan string, 1)
			go func() {
				defer close(wrong)
				for {
					select {
					case <-done:
						return
					default:
					}
					a, err := h.tool(t.Context(), login.Token.AccessToken, "repos_whoami")
					// Right, or "try again": never an answer that a client would take for its own fault.
					if err != nil || a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable {
						wrong <- fmt.Sprint(a, err)
						return
					}
				}
			}()
			c.restart()
			log.any(t, c.service, c.line...)
			h.expectMetric(t, 1, "gateway", fresh)
			h.works(t, login, p)
			close(done)
			if text, bad := <-wrong; bad {
				t.Errorf("a call answers %s", text)
			}
			h.expectReady(t, nil)
		})
	}
}
