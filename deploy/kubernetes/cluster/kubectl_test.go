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

// pod is what the test looks at.
type pod struct {
	Metadata struct {
		Name              string
		DeletionTimestamp string
	}
	Spec   struct{ NodeName string }
	Status struct {
		ContainerStatuses []struct {
			Ready        bool
			RestartCount int
		}
	}
}

func (p pod) ready() bool {
	return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready
}

func (p pod) restarts() int {
	if len(p.Status.ContainerStatuses) != 1 {
		return 0
	}
	return p.Status.ContainerStatuses[0].RestartCount
}

// pods are a service's pods that are not about to stop.
func (k kubectl) pods(service string) []pod {
	k.t.Helper()
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(k.run("get", "pods", "--selector=app.kubernetes.io/name="+service, "--output=json")), &list); err != nil {
		k.t.Fatal(err)
	}
	var staying []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			staying = append(staying, p)
		}
	}
	return staying
}

// ready counts a service's ready pods.
func (k kubectl) ready(service string) int {
	k.t.Helper()
	n := 0
	for _, p := range k.pods(service) {
		if p.ready() {
			n++
		}
	}
	return n
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
