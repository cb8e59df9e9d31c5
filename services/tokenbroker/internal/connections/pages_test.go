package connections_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// Whoever looks for what a person has must see all of it, or that there is more: an
// operator who ends what is shown would otherwise leave the rest alive.
func TestPagesOfSessionsAndConnectionsAreWhole(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	user, connections := o.person("alice", 5)
	o.person("bob", 2)
	// All at one moment: the id decides.
	_, err := o.pool.Exec(t.Context(), `UPDATE tokenbroker.connections SET created_at = now(), provider = 'p q'`)
	must(t, err)
	_, err = o.pool.Exec(t.Context(), `INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, created_at, expires_at)
		SELECT 'ses_page' || n, 'pending', 'c', $1, now(), now() + interval '1 hour' FROM generate_series(1, 5) n`, user)
	must(t, err)

	var want, sessions, links []string
	all, err := o.client().ListSessions(t.Context(), &brokerv1.ListSessionsRequest{UserId: user})
	must(t, err)
	for _, s := range all.GetSessions() {
		want = append(want, s.GetSessionId())
	}
	if len(want) < 5 || all.GetNextPageToken() != "" {
		t.Fatalf("sessions %v, then %q", want, all.GetNextPageToken())
	}
	for token, pages := "", 0; pages == 0 || token != ""; pages++ {
		page, err := o.client().ListSessions(t.Context(), &brokerv1.ListSessionsRequest{UserId: user, PageSize: 2, PageToken: token})
		must(t, err)
		if pages > 9 || len(page.GetSessions()) > 2 {
			t.Fatalf("page %d has %d sessions", pages, len(page.GetSessions()))
		}
		for _, s := range page.GetSessions() {
			sessions = append(sessions, s.GetSessionId())
		}
		token = page.GetNextPageToken()
	}
	if !slices.Equal(sessions, want) {
		t.Errorf("sessions by pages %v, want %v", sessions, want)
	}
	for token, pages := "", 0; pages == 0 || token != ""; pages++ {
		page, err := o.client().ListConnections(t.Context(), &brokerv1.ListConnectionsRequest{UserId: user, PageSize: 2, PageToken: token})
		must(t, err)
		if pages > 9 || len(page.GetConnections()) > 2 {
			t.Fatalf("page %d has %d connections", pages, len(page.GetConnections()))
		}
		for _, c := range page.GetConnections() {
			links = append(links, c.GetConnectionId())
		}
		token = page.GetNextPageToken()
	}
	slices.Sort(links)
	slices.Sort(connections)
	if !slices.Equal(links, connections) {
		t.Errorf("connections by pages %v, want %v", links, connections)
	}

	// Without a word on pages there is one, and it says that it is not all.
	_, err = o.pool.Exec(t.Context(), `INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, created_at, expires_at)
		SELECT 'ses_more' || n, 'pending', 'c', $1, now(), now() + interval '1 hour' FROM generate_series(1, 200) n`, user)
	must(t, err)
	all, err = o.client().ListSessions(t.Context(), &brokerv1.ListSessionsRequest{UserId: user})
	must(t, err)
	if len(all.GetSessions()) != 200 || all.GetNextPageToken() == "" {
		t.Errorf("%d sessions of more, then %q", len(all.GetSessions()), all.GetNextPageToken())
	}
	for _, list := range []string{"sessions", "connections"} {
		path := fmt.Sprintf("/v1/users/%s/%s?pageToken=nonsense", user, list)
		if code, body := o.call(o.restClient("operator"), "GET", path, ""); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
