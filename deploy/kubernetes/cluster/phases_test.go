//go:build k8s

package cluster

import (
	"encoding/json"
	"os"
	"strings"
	"time"
)

// stats is what package load counts.
type stats struct {
	Seconds                          float64
	Calls, Logins, Refreshes, Failed int
	Unavailable                      int
	Last                             string
	LastBegan                        float64 `json:"last_began"`
	LastSeconds                      float64 `json:"last_seconds"`
}

// stats returns the newest counts of the load.
func (k kubectl) stats() stats {
	k.t.Helper()
	s, ok := k.latest()
	if !ok {
		k.t.Fatal("the last 500 lines of the load's log have no counts: does it still run?")
	}
	return s
}

func (k kubectl) latest() (s stats, ok bool) {
	k.t.Helper()
	lines := strings.Split(strings.TrimSpace(k.run("logs", "load", "--tail=500")), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], `"calls"`) && json.Unmarshal([]byte(lines[i]), &s) == nil {
			return s, true
		}
	}
	return s, false
}

// outcome is what the load saw of a phase.
type outcome struct{ before, after stats }

func (o outcome) failed() int      { return o.after.Failed - o.before.Failed }
func (o outcome) unavailable() int { return o.after.Unavailable - o.before.Unavailable }

// phase does something to the cluster, then waits until the load went on for five seconds more.
func (k kubectl) phase(name string, do func()) outcome {
	k.t.Helper()
	before := k.stats()
	do()
	after := k.stats()
	k.await("the load to go on", func() bool {
		now := k.stats()
		return now.Seconds > after.Seconds+5 && now.Logins > after.Logins && now.Calls > after.Calls
	})
	o := outcome{before, k.stats()}
	k.t.Logf("%-38s %3.0f s: %5d calls, %3d logins, %3d refreshes, %d failed, %d told to come again", name, o.after.Seconds-before.Seconds,
		o.after.Calls-before.Calls, o.after.Logins-before.Logins, o.after.Refreshes-before.Refreshes, o.failed(), o.unavailable())
	return o
}

// quiet is a phase of which no client may notice anything.
func (k kubectl) quiet(name string, do func()) {
	k.t.Helper()
	if o := k.phase(name, do); o.failed()+o.unavailable() > 0 {
		k.t.Errorf("%s: %d failures; the last: %s", name, o.failed()+o.unavailable(), o.after.Last)
	}
}

// What a process that is killed may cost. Requests that it had in hand are lost, and until kubelet and
// kube-proxy have noticed, every second new connection to the Service is refused: that takes kubelets
// some seconds at most, the next replica is there already. Six clients and people work at once; each
// sends one thing at a time, and waits for a second after a failure.
const (
	goesOnWithin   = 10 * time.Second
	mayFailOnDeath = 6 * 10 / 2
)

// dies kills one replica without a warning and removes its pod, as a dead node does.
func (k kubectl) dies(killer kubectl, service string) {
	k.t.Helper()
	victim := k.pods(service)[0]
	manifest, err := os.ReadFile("../test/kill.yaml")
	if err != nil {
		k.t.Fatal(err)
	}
	filled := strings.NewReplacer("NAMESPACE", killer.namespace, "NODE", victim.Spec.NodeName).Replace(string(manifest))
	killer.feed(filled, "apply", "--filename=-")
	killer.run("wait", "--for=condition=Ready", "pod/kill", "--timeout=60s")
	const kill = `for p in /proc/[0-9]*; do tr '\0' '\n' <$p/environ 2>/dev/null | grep -qx "HOSTNAME=$0" && kill -KILL ${p#/proc/} && killed=1; done; [ "$killed" ]`
	var began stats
	o := k.phase("kill "+victim.Metadata.Name, func() {
		began = k.stats()
		killer.run("exec", "kill", "--", "sh", "-c", kill, victim.Metadata.Name)
		// That this does not wait is what kubectl warns of.
		if _, stderr, err := k.try("", "delete", "pod", victim.Metadata.Name, "--force", "--grace-period=0"); err != nil {
			k.t.Fatalf("%v\n%s", err, stderr)
		}
		k.await("a pod in its place", func() bool { return len(k.pods(service)) == 2 })
		k.run("rollout", "status", "deployment/"+service, "--timeout=300s")
	})
	killer.run("delete", "pod", "kill", "--wait")
	bad := o.failed() + o.unavailable()
	if bad > mayFailOnDeath {
		k.t.Errorf("%d requests failed when a %s was killed, %d may; the last: %s", bad, service, mayFailOnDeath, o.after.Last)
	}
	if bad > 0 && o.after.LastSeconds > began.Seconds+goesOnWithin.Seconds() {
		k.t.Errorf("a request failed %.1f s after a %s was killed: %s", o.after.LastSeconds-began.Seconds, service, o.after.Last)
	}
}

// recoversWithin is how long after every pod is ready a client may begin what it is told to come again
// for: gateways look for a broker's events again after a second, and kube-proxies hear of pods that
// are ready after a second or two. That a connection leads nowhere takes three seconds to be seen.
const recoversWithin = 5 * time.Second

// outage ends Postgres without a warning, three times, so that kubelet waits before it starts it
// again: at first not, then ten seconds, then twenty. Its data stays, since its pod does.
func (k kubectl) outage() {
	k.t.Helper()
	before := k.restarts()
	var back stats
	o := k.phase("Postgres dies", func() {
		for range 3 {
			crashes := k.pods("postgres")[0].restarts()
			k.run("exec", "postgres-0", "--", "sh", "-c", "kill -QUIT 1")
			if crashes == 2 {
				k.await("authservers and brokers that are not ready, gateways that are", func() bool {
					return k.ready("authserver") == 0 && k.ready("tokenbroker") == 0 && k.ready("gateway") == 2
				})
			}
			k.await("Postgres to be started again", func() bool { return k.pods("postgres")[0].restarts() == crashes+1 })
		}
		k.await("every pod to be ready", func() bool {
			return k.ready("postgres") == 1 && k.ready("authserver") == 2 && k.ready("tokenbroker") == 2 && k.ready("gateway") == 2
		})
		back = k.stats()
	})
	if o.failed() > 0 {
		k.t.Errorf("%d failed without being told to come again; the last: %s", o.failed(), o.after.Last)
	}
	if o.unavailable() == 0 {
		k.t.Error("nobody noticed that Postgres was away: the phase tests nothing")
	}
	if o.after.LastBegan > back.Seconds+recoversWithin.Seconds() {
		k.t.Errorf("what a client began %.1f s after everything was ready was told to come again: %s", o.after.LastBegan-back.Seconds, o.after.Last)
	}
	for name, count := range k.restarts() {
		if was, ok := before[name]; !ok || was != count {
			k.t.Errorf("%s was restarted or replaced (%d restarts, were %d): a restart does not bring a database back", name, count, was)
		}
	}
	k.quiet("afterwards", func() {})
}

// restarts are the restarts of each pod of ours.
func (k kubectl) restarts() map[string]int {
	k.t.Helper()
	counts := map[string]int{}
	for _, service := range services {
		for _, p := range k.pods(service) {
			counts[p.Metadata.Name] = p.restarts()
		}
	}
	return counts
}
