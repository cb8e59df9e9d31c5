package app

import (
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/cli"
)

// Two brokers must never present one refresh token at a time because of a setting.
func TestARenewalCannotOutliveItsLease(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		timeout, lease time.Duration
		want           string
	}{
		"the defaults":    {10 * time.Second, 20 * time.Second, ""},
		"equal":           {10 * time.Second, 10 * time.Second, "--refresh-lease (10s) must be longer than --upstream-timeout (10s)"},
		"shorter":         {30 * time.Second, 20 * time.Second, "--refresh-lease (20s) must be longer than --upstream-timeout (30s)"},
		"no time to call": {0, 20 * time.Second, "--upstream-timeout must be at least 100ms"},
		"for ever":        {10 * time.Second, time.Hour, "--refresh-lease must be at most 10m"},
	} {
		f := Flags{
			AuditRetention: minAuditRetention, EventRetention: minEventRetention, MaxPendingSessions: 1,
			UpstreamTimeout: tt.timeout, RefreshLease: tt.lease, Drain: cli.Drain{DrainTimeout: time.Second},
		}
		err := f.check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
