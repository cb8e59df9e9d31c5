package credential_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/credential"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func prepareWithoutSecrets(t *testing.T) error {
	t.Helper()
	set, report := config.Parse(config.Source{Name: "set.yaml", Data: []byte(strings.NewReplacer(
		"$ISSUER", issuerURL, "$AUDIENCE", audience, "$OP", "http://127.0.0.1:1", "$HUB", "http://127.0.0.1:1", "$STS", "http://127.0.0.1:1",
	).Replace(authServerResources))})
	must(t, report.Err())
	plans := credential.NewPlans(credential.PlansConfig{Secrets: &secret.Resolver{Dir: filepath.Join(t.TempDir(), "none")}})
	return plans.Prepare(&deployment.Snapshot{Digest: set.Digest(), Deployment: set.Deployment()})
}

// source counts reads, and answers as of a position.
type source struct {
	mu       sync.Mutex
	position int64
	reads    int
	expires  time.Time
	before   func() // runs within a read, after its snapshot
}

func (s *source) read() int64 {
	s.mu.Lock()
	s.reads++
	position, before := s.position, s.before
	s.mu.Unlock()
	if before != nil {
		before()
	}
	return position
}

func (s *source) ActiveSession(_ context.Context, id string) (store.ActiveSession, error) {
	return store.ActiveSession{ID: id, UserID: "u", ClientID: "c", Position: s.read(), ExpiresAt: time.Now().Add(24 * time.Hour)}, nil
}

func (s *source) Token(context.Context, string, string) (refresh.Token, error) {
	return refresh.Token{UserID: "u", ConnectionID: "con", Realm: "realm", ObservedPosition: s.read(), ExpiresAt: s.expires}, nil
}

func (s *source) Renew(context.Context, string, int64) (bool, error) { return false, nil }

// events is a watch that a test speaks through.
type events struct {
	stream chan grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]
	end    chan error
}

func (e *events) watch(_ *brokerv1.WatchSessionsRequest, stream grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]) error {
	select {
	case e.stream <- stream:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	select {
	case err := <-e.end:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type memoryTest struct {
	*testing.T
	m      *credential.Memory
	src    *source
	events *events
	clock  *clock
	send   func(*brokerv1.WatchSessionsResponse)
}

func newMemoryTest(t *testing.T, size int) *memoryTest {
	t.Helper()
	m := &memoryTest{
		T: t, src: &source{position: 10}, clock: &clock{now: time.Now()},
		events: &events{make(chan grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]), make(chan error)},
	}
	plans := credential.NewPlans(credential.PlansConfig{Secrets: &secret.Resolver{}})
	m.m = credential.NewMemory(credential.MemoryConfig{
		Sessions: m.src, Tokens: m.src, Watch: m.events.watch, Size: size, Now: m.clock.Now,
		Logger: slog.New(slog.DiscardHandler),
	}, plans)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.m.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return m
}

func (m *memoryTest) listen(head int64) {
	stream := <-m.events.stream
	m.send = func(r *brokerv1.WatchSessionsResponse) { _ = stream.Send(r) }
	m.send(&brokerv1.WatchSessionsResponse{Position: head, Event: &brokerv1.WatchSessionsResponse_SnapshotComplete{SnapshotComplete: &brokerv1.SnapshotComplete{}}})
}

func (m *memoryTest) beat(head int64) {
	m.send(&brokerv1.WatchSessionsResponse{Position: head, Event: &brokerv1.WatchSessionsResponse_Heartbeat{Heartbeat: &brokerv1.Heartbeat{}}})
}

func (m *memoryTest) connectionChanged(position int64) {
	m.send(&brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_ConnectionChanged{ConnectionChanged: &brokerv1.ConnectionChanged{ConnectionId: "con"}}})
}

func (m *memoryTest) sessionEnded(position int64, id string) {
	m.send(&brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_SessionEnded{SessionEnded: &brokerv1.SessionEnded{SessionId: id}}})
}

func (m *memoryTest) sessionChanged(position int64, id string) {
	m.send(&brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_SessionChanged{SessionChanged: &brokerv1.SessionChanged{SessionId: id}}})
}

// token opens, and wants so many reads so far and that position.
func (m *memoryTest) token(reads int, position int64) {
	m.Helper()
	_, got, err := credential.MemoryToken(m.Context(), m.m, "ses", "corp", "realm")
	if err != nil || m.src.reads != reads || got != position {
		m.Fatalf("%d reads, position %d, %v; want %d reads, position %d", m.src.reads, got, err, reads, position)
	}
}

func TestMemoryServesWhatNoEventVoids(t *testing.T) {
	t.Parallel()
	m := newMemoryTest(t, 0)
	m.token(1, 10) // nobody listens yet: nothing is served from memory
	m.token(2, 10)
	m.listen(10)
	m.token(2, 10)
	m.sessionEnded(12, "another")
	m.beat(12)
	m.token(2, 12) // it holds as of the newest event that was heard
	m.src.position = 13
	m.connectionChanged(13)
	m.token(3, 13)
	m.token(3, 13)
	m.sessionEnded(14, "ses")
	m.src.position = 14
	m.token(4, 14)
	m.sessionChanged(15, "another")
	m.token(4, 15)
	m.sessionChanged(16, "ses")
	m.src.position = 16
	m.token(5, 16)
}

func TestMemoryAsksAnewForASessionThatChanged(t *testing.T) {
	t.Parallel()
	m := newMemoryTest(t, 0)
	m.listen(10)
	session := func(reads int, position int64) {
		t.Helper()
		_, got, err := credential.MemorySession(m.m, t.Context(), "ses")
		if err != nil || m.src.reads != reads || got != position {
			t.Fatalf("%d reads, position %d, %v; want %d reads, position %d", m.src.reads, got, err, reads, position)
		}
	}
	session(1, 10)
	m.sessionChanged(11, "another")
	session(1, 11)
	m.sessionChanged(12, "ses")
	m.src.position = 12
	session(2, 12)
	session(2, 12)
}

// An event that crosses a read must void what the read brings.
func TestMemoryEventsThatCrossAReadCount(t *testing.T) {
	t.Parallel()
	m := newMemoryTest(t, 0)
	m.listen(10)
	m.src.before = func() { m.connectionChanged(11) } // the read saw position 10
	m.token(1, 10)
	m.src.before, m.src.position = nil, 11
	m.token(2, 11)
	m.token(2, 11)
}

func TestMemoryIsSilentWithoutHeartbeats(t *testing.T) {
	t.Parallel()
	m := newMemoryTest(t, 0)
	m.listen(10)
	m.token(1, 10)
	m.clock.advance(1900 * time.Millisecond)
	m.token(1, 10)
	m.clock.advance(200 * time.Millisecond)
	m.token(2, 10)
	m.token(3, 10)
	m.beat(10)
	m.token(3, 10)
	// The watch breaks off; events of the gap may have been missed.
	m.events.end <- context.DeadlineExceeded
	m.listen(20)
	m.token(4, 10) // read before the new watch began: not to be trusted later
	m.token(5, 10)
	m.src.position = 20
	m.token(6, 20)
	m.token(6, 20)
}

func TestMemoryDropsTokensBeforeTheyExpire(t *testing.T) {
	t.Parallel()
	m := newMemoryTest(t, 0)
	m.src.expires = m.clock.Now().Add(15 * time.Second)
	m.listen(10)
	m.token(1, 10)
	for range 6 {
		m.clock.advance(time.Second)
		m.beat(10)
	}
	m.token(2, 10)

	m.src.expires = time.Time{}
	m.connectionChanged(11)
	m.src.position = 11
	m.token(3, 11)
	for range 31 {
		m.clock.advance(time.Second)
		m.beat(11)
	}
	m.token(4, 11) // use is noted, and a renewal that is due is made
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemoryTest(t, 2)
	m.listen(10)
	for _, id := range []string{"a", "b", "c", "d"} {
		if _, _, err := credential.MemorySession(m.m, t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if sessions, _ := m.m.Remembered(); sessions != 2 {
		t.Errorf("%d sessions are remembered", sessions)
	}
	for range 6 {
		m.clock.advance(time.Second)
		m.beat(10)
	}
	if sessions, _ := m.m.Remembered(); sessions != 0 {
		t.Errorf("%d sessions are remembered after they are too old", sessions)
	}
	off := newMemoryTest(t, -1)
	off.token(1, 10)
	off.token(2, 10)
}
