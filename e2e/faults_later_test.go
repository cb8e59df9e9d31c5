package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// The tests of this file change the resources of the stack that all tests share,
// and switch faults on in its servers, so none of them is parallel.

// lateFailures are ways in which octohub fails, when corp's tokens are there already.
var lateFailures = map[string]any{
	"an error":  map[string]any{"token": map[string]any{"mode": "error", "error": "invalid_grant"}},
	"a refusal": map[string]any{"authorize": "access_denied"},
}

// requireOctohub makes the second provider of the resources a required one until the
// test ends.
func requireOctohub(t *testing.T) {
	t.Helper()
	optional := func(value string) {
		t.Helper()
		file := shared.stack.ResourcesFile()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := regexp.MustCompile(`(?m)^(\s+)optional: (true|false)$`).ReplaceAllString(string(text), "${1}optional: "+value)
		if !strings.Contains(changed, "optional: "+value) {
			t.Fatal("no provider of the resources is optional")
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx := context.WithoutCancel(t.Context())
		for _, service := range []string{"tokenbroker", "authserver", "gateway"} {
			if err := shared.stack.Restart(ctx, service, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	optional("false")
	t.Cleanup(func() { optional("true") })
}

// failLate is a login that octohub ends after corp's leg: nothing of it is left.
func failLate(t *testing.T, p person, settings any) {
	t.Helper()
	ports := shared.stack.Ports()
	client := newClient(t)
	fault(t, ports.OctohubFaults, settings)
	defer switchFault(t, http.MethodDelete, ports.OctohubFaults, nil)
	staged := func() (n int) {
		query(t, `SELECT count(*) FROM tokenbroker.staged_legs l JOIN tokenbroker.sessions s ON s.id = l.session_id WHERE s.client_id = $1`, []any{client.ID}, &n)
		return n
	}
	before := -1
	err := walk(t, p, client, func(o *browse.Options) {
		o.Transport = notice{prefix: "http://" + local(ports.Octohub) + "/", before: func() { before = max(before, staged()) }}
	})
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || !strings.Contains(refused.ErrorDescription, "octohub") {
		t.Fatalf("the client got %v, want an OAuth error that names octohub", err)
	}
	if before != 1 {
		t.Errorf("%d legs were staged before octohub failed, want that of corp", before)
	}
	eventually(t, func() string {
		if n, m := pendingSessions(t, client.ID), staged(); n != 0 || m != 0 {
			return fmt.Sprintf("%d sessions and %d staged legs of the failed chain are still there", n, m)
		}
		return ""
	})
	var records int
	query(t, `SELECT count(*) FROM tokenbroker.audit WHERE client_id = $1 AND action = 'leg.failed' AND provider = 'octohub'`, []any{client.ID}, &records)
	if records != 1 {
		t.Errorf("%d audit records of the leg that failed, want 1", records)
	}
}

// ofOneLeg is how often a provider is asked to revoke what a leg brought: the refresh
// token, then the access token.
const ofOneLeg = 2

// revocations counts what a provider was asked to revoke.
func revocations(provider string) int { return len(shared.recorders[provider].seen("/revoke")) }

func TestLaterRequiredProviderThatFailsErasesWhatEarlierLegsBrought(t *testing.T) {
	needProcesses(t)
	requireOctohub(t)
	for name, settings := range lateFailures {
		t.Run(name, func(t *testing.T) {
			before := revocations("corp")
			failLate(t, newPerson(t), settings)
			eventually(t, func() string { // nobody uses them again, so corp may forget them
				if n := revocations("corp") - before; n != ofOneLeg {
					return fmt.Sprintf("corp was asked for %d revocations, want %d: of the leg that came to nothing", n, ofOneLeg)
				}
				return ""
			})
		})
	}
}

func TestLoginThatFailsLateLeavesThePersonsOtherLoginsWorking(t *testing.T) {
	needProcesses(t)
	requireOctohub(t)
	ports := shared.stack.Ports()
	for name, settings := range lateFailures {
		t.Run(name, func(t *testing.T) {
			p := newPerson(t)
			first, second := p.logIn(t), p.logIn(t)
			session := connect(t, first, journey.ConnectOptions{})
			checkCalls(t, session, p)
			before := connections(t, first.Claims.Subject)
			if len(before) != 2 {
				t.Fatalf("the person has %v, want a connection to each provider", before)
			}
			corp, octohub := revocations("corp"), revocations("octohub")

			failLate(t, p, settings)
			// A login that fails alike, of somebody who has nothing else at corp. Its leg is
			// given back, in the background; so whatever the broker made of the first is over by then.
			failLate(t, newPerson(t), settings)
			eventually(t, func() string {
				if revocations("corp") < corp+ofOneLeg {
					return "the leg of somebody without another login is not given back"
				}
				return ""
			})
			if n, m := revocations("corp")-corp, revocations("octohub")-octohub; n != ofOneLeg || m != 0 {
				t.Errorf("corp was asked for %d revocations and octohub for %d, want %d and none: the stranger's alone", n, m, ofOneLeg)
			}

			// Both grants are still good for renewals, too. A backend that says 401 is sent
			// another exchanged token first; the second time, to another session because each
			// asks but once in a while, one that is made of a renewed token.
			renewed := map[int]requests{}
			for _, port := range []int{ports.CorpFaults, ports.OctohubFaults} {
				renewed[port] = count(t, port, "refresh_token")
			}
			fault(t, ports.ReposFaults, map[string]any{"unauthorized": 1})
			checkCalls(t, session, p)
			fault(t, ports.PayrollFaults, map[string]any{"unauthorized": 1})
			checkCalls(t, session, p)
			fault(t, ports.PayrollFaults, map[string]any{"unauthorized": 1})
			checkCalls(t, connect(t, second, journey.ConnectOptions{}), p)
			checkCalls(t, session, p)
			for port, was := range renewed {
				if now := count(t, port, "refresh_token"); now.Succeeded != was.Succeeded+1 || now.Requests != was.Requests+1 {
					t.Errorf("port %d counted %+v renewals after %+v: want one, and that it worked", port, now, was)
				}
			}
			after := connections(t, first.Claims.Subject)
			if len(after) != len(before) {
				t.Errorf("connections before: %v, after: %v", before, after)
			}
			for id, was := range before {
				now := after[id]
				if now.GetState() != brokerv1.ConnectionState_CONNECTION_STATE_ACTIVE || now.GetVersion() <= was.GetVersion() {
					t.Errorf("connection %s was %v and is %v, want it active and renewed", id, was, now)
				}
			}
		})
	}
}

// notice calls before in front of each request to a URL.
type notice struct {
	prefix string
	before func()
}

// RoundTrip implements http.RoundTripper.
func (n notice) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasPrefix(req.URL.String(), n.prefix) {
		n.before()
	}
	return http.DefaultTransport.RoundTrip(req)
}
