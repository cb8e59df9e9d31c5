package credential_test

import (
	"context"
	"testing"
	"time"

	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

// noAudit leaves out what both ways of opening a credential have in common: an
// insert that is durable before the answer.
type noAudit struct{}

func (noAudit) Record(context.Context, audit.Record) error { return nil }

// BenchmarkGetCredential measures the calls of many gateways at once for one
// person's connection: opened from memory, read from Postgres and unsealed each
// time, and from memory with the audit record that every real call leaves.
func BenchmarkGetCredential(b *testing.B) {
	for _, bm := range []struct {
		name string
		o    options
	}{
		{"warm", options{audit: noAudit{}, quiet: true}},
		{"postgres", options{audit: noAudit{}, quiet: true, memory: -1}},
		{"warm-audited", options{quiet: true}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			broker := start(b, bm.o)
			token := broker.token(broker.logIn(true), nil)
			req := &brokerv1.GetCredentialRequest{
				AccessToken: token, Backend: "repos", ConfigDigest: broker.source.Current().Digest,
			}
			broker.mustGet(token, "repos")
			begin := time.Now()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := broker.GetCredential(b.Context(), req); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "credentials/s")
		})
	}
}
