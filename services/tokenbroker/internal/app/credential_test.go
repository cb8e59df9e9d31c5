package app_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// gateway is a caller's access token in a gateway's hands.
type gateway struct {
	*broker
	token, digest string
}

func (b *broker) gateway(session, user string) gateway {
	b.t.Helper()
	listed, err := b.login.ListProviders(b.t.Context(), &brokerv1.ListProvidersRequest{})
	must(b.t, err)
	return gateway{b, b.accessToken(session, user), listed.GetConfigDigest()}
}

func (g gateway) get(ctx context.Context) (*brokerv1.GetCredentialResponse, error) {
	return g.credentials.GetCredential(ctx, &brokerv1.GetCredentialRequest{
		AccessToken: g.token, Backend: "repos", ConfigDigest: g.digest,
	})
}

func (g gateway) header() string {
	g.t.Helper()
	c, err := g.get(g.t.Context())
	must(g.t, err)
	if len(c.GetHeaders()) != 1 || c.GetHeaders()[0].GetName() != "Authorization" || c.GetOrigin() != "http://localhost:7001" {
		g.t.Fatalf("credential for %s with %d headers", c.GetOrigin(), len(c.GetHeaders()))
	}
	return c.GetHeaders()[0].GetValue()
}

func TestACredentialFollowsItsSessionFromLoginToEnd(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	g := b.gateway(session, active.GetUserId())
	first := g.header()
	if !strings.HasPrefix(first, "Bearer "+tokenMark+".octocat.at") {
		t.Fatalf("header = %q", first)
	}
	c, err := g.get(t.Context())
	must(t, err)

	// A backend refused it: one renewal for all who say so.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			resp, err := b.credentials.ReportRejected(t.Context(), &brokerv1.ReportRejectedRequest{
				AccessToken: g.token, Backend: "repos", ConfigDigest: g.digest, CredentialVersion: c.GetCredentialVersion(),
			})
			if err != nil || !resp.GetRenewed() {
				t.Errorf("renewed = %v, %v", resp.GetRenewed(), err)
			}
		})
	}
	wg.Wait()
	if second := g.header(); second == first {
		t.Error("the refused token is served again")
	}
	b.hub.set(func(h *hub) {
		if h.issued != 2 {
			t.Errorf("the provider issued %d tokens, want the login's and one more", h.issued)
		}
	})

	stranger := b.gateway(session, "usr_somebody")
	if _, err := stranger.get(t.Context()); err == nil {
		t.Error("a token of another subject opens the session")
	}
	_, err = b.login.EndSession(t.Context(), &brokerv1.EndSessionRequest{
		SessionId: session, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_SIGNED_OUT,
	})
	must(t, err)
	b.eventually("the session to be refused", func() bool {
		_, err := g.get(t.Context())
		return err != nil
	})
	_, err = g.get(t.Context())
	wantReason(t, err, reason.SessionEnded)
}

func TestADisconnectedProviderIsAskedForWithinASecond(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	g := b.gateway(session, active.GetUserId())
	g.header()
	watch, err := b.credentials.WatchSessions(t.Context(), &brokerv1.WatchSessionsRequest{})
	must(t, err)
	for {
		m, err := watch.Recv()
		must(t, err)
		if m.GetSnapshotComplete() != nil {
			break
		}
	}
	connection := active.GetLinks()[1].GetConnectionId()
	began := time.Now()
	_, err = b.connections.Disconnect(t.Context(), &brokerv1.DisconnectRequest{ConnectionId: connection})
	must(t, err)
	for {
		m, err := watch.Recv()
		must(t, err)
		if m.GetConnectionChanged().GetConnectionId() == connection {
			break
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("a watcher heard of it after %s", took)
	}
	b.eventually("the provider to be asked for", func() bool {
		_, err := g.get(t.Context())
		return err != nil
	})
	_, err = g.get(t.Context())
	wantReason(t, err, reason.ConnectionRequired)
}
