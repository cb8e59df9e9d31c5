//go:build compose

package compose

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/e2e/crowd"
)

// leastShare is what each of two replicas must serve.
const leastShare = 0.3

// served returns how many requests a replica has answered: those of its public
// listener, or RPCs that are no streams.
func (p *project) served(service string, adminPort int) float64 {
	p.t.Helper()
	resp, err := http.Get("http://" + p.compose("port", service, strconv.Itoa(adminPort)) + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	total := 0.0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), "} ")
		switch {
		case strings.HasPrefix(series, "http_server_request_duration_seconds_count{") && strings.Contains(series, `server="public"`),
			strings.HasPrefix(series, "rpc_server_call_duration_seconds_count{") && strings.Contains(series, `rpc_method="broker.v1.`) && !strings.Contains(series, "/Watch"):
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			total += n
		}
	}
	if err := lines.Err(); err != nil {
		p.t.Fatal(err)
	}
	return total
}

var adminPorts = map[string]int{"gateway": 8001, "authserver": 8081, "tokenbroker": 9092}

// checkShares compares what two replicas have served.
func (p *project) checkShares() {
	p.t.Helper()
	for service, port := range adminPorts {
		first, second := p.served(service, port), p.served(service+"-2", port)
		share := first / max(1, first+second)
		p.t.Logf("%s: %.0f requests, %s-2: %.0f: %.0f%% and %.0f%%", service, first, service, second, 100*share, 100-100*share)
		if first+second < 100 || share < leastShare || share > 1-leastShare {
			p.t.Errorf("%s: the replicas served %.0f and %.0f requests; each should serve %.0f%%", service, first, second, 100*leastShare)
		}
	}
}

// until waits until the clients have done that much more.
func (y *tally) until(t *testing.T, calls, logins int) {
	t.Helper()
	calls0, logins0 := y.counts()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, l := y.counts()
		if c >= calls0+calls && l >= logins0+logins {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("only %d of %d calls and %d of %d logins were done", c-calls0, calls, l-logins0, logins)
		}
	}
}

func TestTwoReplicasShareTheWorkAndOneOfEachMayDie(t *testing.T) {
	p := start(t, "replicas")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var y tally
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			if err := y.keepCalling(ctx, crowd.Number(i), []string{"2025-11-25", "2026-07-28"}[i%2]); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 2 {
		group.Go(func() { y.keepLoggingIn(ctx, crowd.Number(10+i)) })
	}
	y.until(t, 400, 12)
	calls, logins := y.counts()
	t.Logf("both replicas up: %d calls, %d logins, %d failed attempts", calls, logins, len(y.failed))
	if len(y.failed) > 0 {
		t.Errorf("with all replicas up %d attempts failed: %s: %v", len(y.failed), y.failed[0].what, y.failed[0].err)
	}
	p.checkShares()

	var deaths []death
	for _, service := range []string{"gateway", "tokenbroker", "authserver"} {
		deaths = append(deaths, death{service: service, at: time.Now()})
		p.compose("kill", "--signal=KILL", service)
		y.until(t, 200, 6)
	}
	cancel()
	group.Wait()
	y.report(t, deaths)
}

// settled is when a client should not notice any more that a replica died.
const settled = 5 * time.Second

func (y *tally) report(t *testing.T, deaths []death) {
	t.Helper()
	t.Logf("in all: %d calls, %d logins, %d failed attempts, %d lost", y.calls, y.logins, len(y.failed), len(y.lost))
	for _, f := range y.failed {
		last := deaths[0] // no attempt had failed before it
		for _, d := range deaths {
			if f.at.After(d.at) {
				last = d
			}
		}
		since := f.at.Sub(last.at)
		t.Logf("failed %s after %s was told to die: %s: %.200v", since.Round(time.Millisecond), last.service, f.what, f.err)
		if since > settled {
			t.Errorf("%s: an attempt failed although the replica had long been gone", f.what)
		}
	}
	for _, f := range y.lost {
		t.Errorf("lost: %s: %v", f.what, f.err)
	}
}
