package watch_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/watch"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a broker's watch over a real connection, on a real database.
type fixture struct {
	t      *testing.T
	url    secret.String
	store  *store.Store
	client brokerv1.CredentialServiceClient
	exec   func(sql string, args ...any)
	// stop ends the feed.
	stop context.CancelFunc
}

type server struct {
	brokerv1.UnimplementedCredentialServiceServer
	*watch.Watcher
}

func (s server) WatchSessions(req *brokerv1.WatchSessionsRequest, stream watch.Stream) error {
	return s.Watcher.WatchSessions(req, stream)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, url: pgtest.URL(t, schema.Migrations())}
	pool, err := postgres.Open(context.Background(), postgres.Config{URL: f.url, MaxConns: 8})
	must(t, err)
	t.Cleanup(pool.Close)
	f.store = store.New(pool)
	f.exec = func(sql string, args ...any) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql, args...)
		must(t, err)
	}
	feed := watch.NewFeed(f.url, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := feed.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })

	ca := rpctest.NewCA(t)
	s, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), StopTimeout: time.Second,
		Peers: map[string][]string{brokerv1.CredentialService_ServiceDesc.ServiceName: {"gateway"}},
	})
	must(t, err)
	brokerv1.RegisterCredentialServiceServer(s, server{Watcher: watch.NewWatcher(feed, f.store, func() time.Duration { return time.Hour })})
	address := rpctest.Serve(t, s)
	f.client = brokerv1.NewCredentialServiceClient(ca.Dial(address, "tokenbroker", nil, "gateway"))
	return f
}

// session makes an active session without a login.
func (f *fixture) session() string {
	f.t.Helper()
	id, _, err := f.store.BeginSession(f.t.Context(), "client", "", time.Minute)
	must(f.t, err)
	f.exec(`INSERT INTO tokenbroker.users (id, realm, subject_field, subject) VALUES ('u', 'r', 'sub', 's') ON CONFLICT DO NOTHING`)
	f.exec(`UPDATE tokenbroker.sessions SET state = 'active', user_id = 'u', activated_at = now(),
		ends_at = now() + interval '1 day', expires_at = now() + interval '1 hour' WHERE id = $1`, id)
	return id
}

func (f *fixture) end(id string) {
	f.t.Helper()
	_, err := f.store.EndSession(f.t.Context(), id, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"})
	must(f.t, err)
}

type stream = grpc.ServerStreamingClient[brokerv1.WatchSessionsResponse]

func (f *fixture) watch(after int64) stream {
	f.t.Helper()
	s, err := f.client.WatchSessions(f.t.Context(), &brokerv1.WatchSessionsRequest{AfterPosition: after})
	must(f.t, err)
	return s
}

// next returns the next message that is no heartbeat.
func next(t *testing.T, s stream) *brokerv1.WatchSessionsResponse {
	t.Helper()
	for {
		m, err := s.Recv()
		must(t, err)
		if m.GetHeartbeat() == nil {
			return m
		}
	}
}

func wantEnded(t *testing.T, s stream, id string) (position int64) {
	t.Helper()
	m := next(t, s)
	if m.GetSessionEnded().GetSessionId() != id {
		t.Fatalf("got %v, want the end of %s", m, id)
	}
	return m.GetPosition()
}

func wantComplete(t *testing.T, s stream) (position int64) {
	t.Helper()
	m := next(t, s)
	if m.GetSnapshotComplete() == nil {
		t.Fatalf("got %v, want the end of the snapshot", m)
	}
	return m.GetPosition()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}

func TestAFreshWatcherHearsOfSessionsThatEndedBeforeAndAfter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before, after := f.session(), f.session()
	f.end(before)
	s := f.watch(0)
	position := wantEnded(t, s, before)
	if p := wantComplete(t, s); p != position {
		t.Errorf("snapshot at %d, want %d", p, position)
	}
	f.end(after)
	if p := wantEnded(t, s, after); p != position+1 {
		t.Errorf("event at %d, want %d", p, position+1)
	}
}

func TestAnEndedSessionIsHeardOfWithinASecond(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.session()
	s := f.watch(0)
	wantComplete(t, s)
	began := time.Now()
	f.end(id)
	wantEnded(t, s, id)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAWatcherThatResumesMissesNothingAndHearsNothingTwice(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ids := []string{f.session(), f.session(), f.session(), f.session()}
	first := f.watch(0)
	wantComplete(t, first)
	f.end(ids[0])
	seen := wantEnded(t, first, ids[0])
	f.end(ids[1])
	f.end(ids[2])
	s := f.watch(seen)
	wantEnded(t, s, ids[1])
	wantEnded(t, s, ids[2])
	wantComplete(t, s)
	f.end(ids[3])
	wantEnded(t, s, ids[3])
}

func TestAPositionOfAnotherDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.watch(4711).Recv()
	if fault.ReasonOf(err) != reason.PositionUnknown {
		t.Errorf("err = %v", err)
	}
}

func TestHeartbeatsComeEachSecondWithTheNewestPosition(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.session()
	s := f.watch(0)
	wantComplete(t, s)
	f.end(id)
	position := wantEnded(t, s, id)
	last := time.Now()
	for range 3 {
		m, err := s.Recv()
		must(t, err)
		if m.GetHeartbeat() == nil || m.GetPosition() != position {
			t.Fatalf("got %v at %d, want a heartbeat at %d", m, m.GetPosition(), position)
		}
		if gap := time.Since(last); gap > 2*time.Second {
			t.Errorf("silent for %s", gap)
		}
		last = time.Now()
	}
}

// Heartbeats promise that ended sessions are heard of; a broker that cannot read
// its database must not send any, and must find its way back by itself.
func TestWithoutTheDatabaseThereAreNoHeartbeats(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.session()
	s := f.watch(0)
	wantComplete(t, s)
	f.exec(`ALTER TABLE tokenbroker.event_head RENAME TO event_head_gone`)
	messages := make(chan *brokerv1.WatchSessionsResponse, 100)
	go func() {
		defer close(messages)
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			messages <- m
		}
	}()
	quiet := time.NewTimer(2500 * time.Millisecond)
	settle := time.After(500 * time.Millisecond) // beats that were on their way
	for silent := false; !silent; {
		select {
		case <-messages:
			select {
			case <-settle:
				t.Fatal("a heartbeat without a database")
			default:
			}
		case <-quiet.C:
			silent = true
		}
	}
	f.exec(`ALTER TABLE tokenbroker.event_head_gone RENAME TO event_head`)
	f.end(id)
	deadline := time.After(10 * time.Second)
	for {
		select {
		case m := <-messages:
			if m.GetSessionEnded().GetSessionId() == id {
				return
			}
		case <-deadline:
			t.Fatal("the watch did not come back")
		}
	}
}

func TestConnectionChangesAreToldInOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.session()
	s := f.watch(0)
	wantComplete(t, s)
	f.exec(`INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at,
			key_id, wrapped_key, sealed_tokens) VALUES ('con', 'u', 'p', 'r', 's', 'active', 1, true, now(), 'k', 'w', 's')`)
	_, _, err := f.store.Disconnect(f.t.Context(), "con", audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success})
	must(t, err)
	if m := next(t, s); m.GetConnectionChanged().GetConnectionId() != "con" {
		t.Errorf("got %v", m)
	}
}

// A gateway that took it for the session's end would turn the person away until they
// log in; one that took it for a connection's change would forget the wrong thing.
func TestAChangedSessionIsToldAsSuch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id, ended := f.session(), f.session()
	f.end(ended)
	follows := f.watch(0)
	wantEnded(t, follows, ended)
	began := wantComplete(t, follows)
	f.exec(`INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at,
			key_id, wrapped_key, sealed_tokens) VALUES ('con', 'u', 'p', 'r', 's', 'active', 1, true, now(), 'k', 'w', 's')`)
	locked, err := f.store.RequireReauthentication(t.Context(), store.Refusal{
		ConnectionID: "con", PresentedVersion: 1, LockUser: true,
		Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: reason.ReauthenticationRequired},
	})
	if err != nil || !locked {
		t.Fatal(locked, err)
	}
	for name, s := range map[string]stream{"who follows": follows, "who resumes": f.watch(began)} {
		if m := next(t, s); m.GetSessionChanged().GetSessionId() != id {
			t.Errorf("%s: got %v, want a change of %s", name, m, id)
		}
		if m := next(t, s); m.GetConnectionChanged().GetConnectionId() != "con" {
			t.Errorf("%s: got %v, want a change of the connection", name, m)
		}
	}
	fresh := f.watch(0)
	wantEnded(t, fresh, ended)
	if p := wantComplete(t, fresh); p != began+2 { // it has nothing that could be void
		t.Errorf("a fresh watcher begins at %d, want %d", p, began+2)
	}
}

func TestStoppingSendsWatchersElsewhere(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.watch(0)
	wantComplete(t, s)
	f.stop()
	for {
		if _, err := s.Recv(); err != nil {
			if fault.KindOf(err) != fault.Unavailable {
				t.Errorf("err = %v", err)
			}
			break
		}
	}
	_, err := f.watch(0).Recv()
	for err == nil { // the snapshot may still come
		s = f.watch(0)
		for err == nil {
			_, err = s.Recv()
		}
	}
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a new watch on a stopping broker: %v", err)
	}
}
