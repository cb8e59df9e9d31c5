package refresh

import (
	"testing"
	"time"
)

func TestTokensAreRenewedBeforeTheyEndAndNotAllTheTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ lifetime, least, most time.Duration }{
		{time.Hour, 60 * time.Second, 75 * time.Second},
		{5 * time.Minute, 60 * time.Second, 60 * time.Second}, // a fifth
		{30 * time.Second, 6 * time.Second, 6 * time.Second},
		{0, 0, 0},
		{-time.Minute, 0, 0}, // arrived when it was over
	} {
		for range 50 {
			ends := now.Add(c.lifetime)
			if window := ends.Sub(After(ends, now)); window < c.least || window > c.most {
				t.Fatalf("a token of %s is renewed %s ahead, want %s to %s", c.lifetime, window, c.least, c.most)
			}
		}
	}
	if !After(time.Time{}, now).IsZero() {
		t.Error("a token without an end is renewed ahead of it")
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	t.Parallel()
	for failures := range 40 {
		d := backoff(failures)
		if d < minBackoff/2 || d > maxBackoff {
			t.Errorf("after %d failures: %s", failures, d)
		}
	}
	if d := backoff(7); d < 32*time.Second {
		t.Errorf("after 7 failures: %s", d)
	}
}
