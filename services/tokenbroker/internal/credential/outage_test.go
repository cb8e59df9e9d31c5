package credential_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/credential"
)

// Of a database that is away for long the log has two lines.
func TestALongSilenceIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var down atomic.Bool
		down.Store(true)
		m := credential.NewMemory(credential.MemoryConfig{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Watch: func(_ *brokerv1.WatchSessionsRequest, s grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]) error {
				if down.Load() {
					return fault.New(fault.Unavailable, "the database is not available")
				}
				err := s.Send(&brokerv1.WatchSessionsResponse{
					Position: 1, Event: &brokerv1.WatchSessionsResponse_SnapshotComplete{SnapshotComplete: &brokerv1.SnapshotComplete{}},
				})
				<-s.Context().Done()
				return err
			},
		}, credential.NewPlans(credential.PlansConfig{Secrets: &secret.Resolver{}}))
		go func() { _ = m.Run(t.Context()) }()
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "events are heard again") != 1 {
			t.Errorf("%d warnings in an hour:\n%.1000s", n, &log)
		}
	})
}
