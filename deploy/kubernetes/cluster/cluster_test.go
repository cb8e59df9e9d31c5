//go:build k8s

package cluster

import (
	"os"
	"strings"
	"testing"
	"time"
)

// services are restarted, deleted and killed, in this order.
var services = []string{"gateway", "authserver", "tokenbroker"}

func TestDemo(t *testing.T)       { test(t, "../overlays/demo", "chatelaine-demo") }
func TestProduction(t *testing.T) { test(t, "../test/production", "chatelaine") }

func test(t *testing.T, overlay, namespace string) {
	if os.Getenv("KUBECONFIG") == "" {
		t.Fatal("KUBECONFIG is not set: name the cluster on purpose, since the test makes and removes namespaces there")
	}
	k := kubectl{t, namespace}
	k.own()
	killer := kubectl{t, namespace + "-kill"}
	killer.own()
	k.install(overlay)
	k.walk()
	k.feed("", "apply", "--filename=../test/load.yaml")
	k.run("wait", "--for=condition=Ready", "pod/load", "--timeout=60s")
	k.await("the load to begin", func() bool { s, ok := k.latest(); return ok && s.Logins > 0 })
	k.balanced()
	for _, service := range services {
		k.quiet("restart "+service, func() { k.restart(service) })
		// One after the other, so that clients have to find pods that they have never seen.
		for _, pod := range k.pods(service) {
			k.quiet("delete "+pod.Metadata.Name, func() { k.remove(service, pod) })
		}
		k.dies(killer, service)
	}
	k.outage()
}

// own fails the test when somebody has the namespace already, and removes it at the end.
func (k kubectl) own() {
	k.t.Helper()
	if out := k.run("get", "namespace", k.namespace, "--ignore-not-found", "--output=name"); out != "" {
		k.t.Fatalf("the namespace %s exists already; delete it if nobody needs it", k.namespace)
	}
	k.t.Cleanup(func() { // it warns that a namespace is in no namespace
		if _, stderr, err := k.try("", "delete", "namespace", k.namespace, "--ignore-not-found", "--wait"); err != nil {
			k.t.Errorf("delete the namespace %s: %v\n%s", k.namespace, err, stderr)
		}
	})
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

func (k kubectl) restart(service string) {
	k.run("rollout", "restart", "deployment/"+service)
	k.run("rollout", "status", "deployment/"+service, "--timeout=300s")
}

func (k kubectl) remove(service string, p pod) {
	k.run("delete", "pod", p.Metadata.Name, "--wait")
	k.run("rollout", "status", "deployment/"+service, "--timeout=300s")
}
