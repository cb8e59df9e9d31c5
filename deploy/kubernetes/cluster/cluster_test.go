//go:build k8s

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// services are restarted and deleted, in this order.
var services = []string{"gateway", "authserver", "tokenbroker"}

// kubectl is a cluster and a namespace.
type kubectl struct {
	t         *testing.T
	namespace string
}

// try runs kubectl and returns both outputs.
func (k kubectl) try(stdin string, args ...string) (stdout, stderr string, err error) {
	k.t.Helper()
	program := os.Getenv("KUBECTL")
	if program == "" {
		program = "kubectl"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), 10*time.Minute)
	defer cancel()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, program, append([]string{"--namespace", k.namespace}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}

// run fails the test when kubectl does, or when it warns.
func (k kubectl) run(args ...string) string {
	k.t.Helper()
	return k.feed("", args...)
}

func (k kubectl) feed(stdin string, args ...string) string {
	k.t.Helper()
	stdout, stderr, err := k.try(stdin, args...)
	if err != nil || strings.Contains(stderr, "Warning") {
		k.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

func TestDemo(t *testing.T)       { test(t, "../overlays/demo", "chatelaine-demo") }
func TestProduction(t *testing.T) { test(t, "../test/production", "chatelaine") }

func test(t *testing.T, overlay, namespace string) {
	if os.Getenv("KUBECONFIG") == "" {
		t.Fatal("KUBECONFIG is not set: name the cluster on purpose, since the test makes and removes namespaces there")
	}
	k := kubectl{t, namespace}
	if out := k.run("get", "namespace", namespace, "--ignore-not-found", "--output=name"); out != "" {
		t.Fatalf("the namespace %s exists already; delete it if nobody needs it", namespace)
	}
	t.Cleanup(func() { // it warns that a namespace is in no namespace
		if _, stderr, err := k.try("", "delete", "namespace", namespace, "--wait"); err != nil {
			t.Errorf("delete the namespace %s: %v\n%s", namespace, err, stderr)
		}
	})
	k.install(overlay)
	k.walk()
	k.feed("", "apply", "--filename=../test/load.yaml")
	k.run("wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
	k.await("the load to begin", func() bool { return k.stats().Logins > 0 })
	for _, service := range services {
		k.phase("restart "+service, func() { k.restart(service) })
		// One after the other, so that clients have to find pods that they have never seen.
		for _, pod := range k.pods(service) {
			k.phase("delete "+pod, func() { k.remove(service, pod) })
		}
	}
	if all := k.stats(); all.Failed > 0 {
		t.Errorf("%d failures; the last: %s", all.Failed, all.Last)
	}
	k.balanced()
}

// install applies the overlay, first in a dry run of the server, and waits for everything.
func (k kubectl) install(overlay string) {
	k.t.Helper()
	rendered := k.run("kustomize", overlay)
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		if strings.Contains(document, "\nkind: Namespace\n") {
			k.feed(document, "apply", "--filename=-")
		}
	}
	k.run("apply", "--kustomize", overlay, "--dry-run=server")
	begin := time.Now()
	k.run("apply", "--kustomize", overlay)
	k.run("wait", "--for=condition=Complete", "job", "--all", "--timeout=300s")
	k.run("wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s")
	k.t.Logf("%s: everything is available after %s", overlay, time.Since(begin).Round(time.Second))
	k.await("two replicas of each service", func() bool {
		for _, service := range services {
			if len(k.pods(service)) != 2 {
				return false
			}
		}
		return true
	})
	for _, service := range services {
		k.run("rollout", "status", "deployment/"+service, "--timeout=300s")
	}
}

// walk makes one login and three calls from inside.
func (k kubectl) walk() {
	k.t.Helper()
	k.run("apply", "--filename=../test/walk.yaml")
	_, _, err := k.try("", "wait", "--for=condition=Complete", "job/walk", "--timeout=90s")
	text := k.run("logs", "job/walk")
	if err != nil || !strings.Contains(text, "journey done") {
		k.t.Fatalf("the journey did not end: %v\n%s", err, text)
	}
	k.t.Logf("the journey, from inside:\n%s", text)
}

// pods are the names of a service's pods that are not about to stop.
func (k kubectl) pods(service string) []string {
	k.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp string
			}
		}
	}
	if err := json.Unmarshal([]byte(k.run("get", "pods", "--selector=app.kubernetes.io/name="+service, "--output=json")), &list); err != nil {
		k.t.Fatal(err)
	}
	var names []string
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			names = append(names, p.Metadata.Name)
		}
	}
	return names
}

func (k kubectl) restart(service string) {
	k.run("rollout", "restart", "deployment/"+service)
	k.run("rollout", "status", "deployment/"+service, "--timeout=300s")
}

func (k kubectl) remove(service, pod string) {
	k.run("delete", "pod", pod, "--wait")
	k.run("rollout", "status", "deployment/"+service, "--timeout=300s")
}

// stats is what package load counts.
type stats struct {
	Seconds                          float64
	Calls, Logins, Refreshes, Failed int
	Last                             string
}

// stats returns the newest line of the load's log.
func (k kubectl) stats() stats {
	k.t.Helper()
	lines := strings.Split(strings.TrimSpace(k.run("logs", "load", "--tail=20")), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var s stats
		if strings.Contains(lines[i], `"calls"`) && json.Unmarshal([]byte(lines[i]), &s) == nil {
			return s
		}
	}
	return stats{}
}

// phase does something to the cluster, then waits until the load went on for five seconds more.
func (k kubectl) phase(name string, do func()) {
	k.t.Helper()
	before := k.stats()
	do()
	after := k.stats()
	k.await("the load to go on", func() bool {
		now := k.stats()
		return now.Seconds > after.Seconds+5 && now.Logins > after.Logins && now.Calls > after.Calls
	})
	after = k.stats()
	k.t.Logf("%-38s %3.0f s: %5d calls, %3d logins, %3d refreshes, %d failed", name, after.Seconds-before.Seconds,
		after.Calls-before.Calls, after.Logins-before.Logins, after.Refreshes-before.Refreshes, after.Failed-before.Failed)
	if after.Failed > before.Failed {
		k.t.Errorf("%s: %d failures; the last: %s", name, after.Failed-before.Failed, after.Last)
	}
}

// balanced checks that every broker works: the calls of gateways and authservers are spread.
func (k kubectl) balanced() {
	k.t.Helper()
	for _, pod := range k.pods("tokenbroker") {
		metrics := k.run("get", "--raw", "/api/v1/namespaces/"+k.namespace+"/pods/"+pod+":9092/proxy/metrics")
		served := false
		for line := range strings.SplitSeq(metrics, "\n") {
			served = served || strings.HasPrefix(line, "rpc_server_call_duration_seconds_count{") && strings.Contains(line, "LoginService/RedeemCode")
		}
		if !served {
			k.t.Errorf("no login reached %s", pod)
		}
	}
}

// await polls, with a deadline.
func (k kubectl) await(what string, condition func() bool) {
	k.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			k.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(500 * time.Millisecond)
	}
}
