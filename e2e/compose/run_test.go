//go:build compose

package compose

import (
	"testing"
	"time"
)

func TestUpAloneBuildsAndStartsWhatPassesTheEndToEndTests(t *testing.T) {
	if err := removeImages(); err != nil {
		t.Fatal(err)
	}
	p := start(t)
	if got := images(t); len(got) != len(targets) {
		t.Errorf("`up` built %v", got)
	}
	p.endToEnd("end-to-end tests")
	p.checkHealthFollows()
}

func TestEndToEndTestsPassAgainstTwoReplicasOfWhichOneDies(t *testing.T) {
	p := start(t, "replicas")
	p.endToEnd("two replicas of each service")
	p.checkShares()
	p.endToEndWithDeaths("one replica of each killed meanwhile", "gateway", "tokenbroker", "authserver")
	p.endToEnd("one replica of each left")
	p.compose("up", "--detach", "--wait", "--wait-timeout="+waitSeconds)
	p.endToEnd("two replicas again")
}

// checkHealthFollows lets each service hang, all threads of it, and go on: its
// health check must notice both.
func (p *project) checkHealthFollows() {
	p.t.Helper()
	for service := range adminPorts {
		p.compose("kill", "--signal=STOP", service)
	}
	for service := range adminPorts {
		p.untilHealth(service, "unhealthy")
		p.compose("kill", "--signal=CONT", service)
	}
	for service := range adminPorts {
		p.untilHealth(service, "healthy")
	}
}

func (p *project) untilHealth(service, want string) {
	p.t.Helper()
	container, begun := p.container(service), time.Now()
	deadline := time.NewTimer(3 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		is := docker(p.t, "inspect", "--format={{.State.Health.Status}}", container)
		if is == want {
			p.t.Logf("%s is %s after %s more", service, want, time.Since(begun).Round(time.Second))
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("%s is %s, want %s", service, is, want)
		}
	}
}
