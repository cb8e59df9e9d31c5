//go:build compose

package compose

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOnlyATestThatWasRunningWhenAReplicaDiedMayFail(t *testing.T) {
	t.Parallel()
	s := &suite{tests: map[string]*testRun{}}
	if err := s.follow(strings.NewReader(`
		{"Time":"2026-01-01T00:00:00Z","Action":"run","Test":"TestEarlier"}
		{"Time":"2026-01-01T00:00:00Z","Action":"run","Test":"TestWaiting"}
		{"Time":"2026-01-01T00:00:01Z","Action":"pause","Test":"TestWaiting"}
		{"Time":"2026-01-01T00:00:02Z","Action":"run","Test":"TestMeanwhile"}
		{"Time":"2026-01-01T00:00:09Z","Action":"fail","Test":"TestEarlier"}
		{"Time":"2026-01-01T00:00:20Z","Action":"output","Test":"TestMeanwhile/part","Output":"Bad Gateway\n"}
		{"Time":"2026-01-01T00:00:20Z","Action":"fail","Test":"TestMeanwhile/part"}
		{"Time":"2026-01-01T00:00:20Z","Action":"fail","Test":"TestMeanwhile"}
		{"Time":"2026-01-01T00:00:21Z","Action":"cont","Test":"TestWaiting"}
		{"Time":"2026-01-01T00:00:22Z","Action":"fail","Test":"TestWaiting"}
		{"Time":"2026-01-01T00:00:23Z","Action":"skip","Test":"TestElsewhere"}
		{"Time":"2026-01-01T00:00:24Z","Action":"run","Test":"TestNeverEnds"}
	`)); err != nil {
		t.Fatal(err)
	}
	died := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	s.deaths = []death{{service: "gateway", at: died, gone: died.Add(time.Second)}}
	if got, want := s.unexcused(), []string{"TestEarlier", "TestNeverEnds", "TestWaiting"}; !slices.Equal(got, want) {
		t.Errorf("without an excuse failed %q, want %q", got, want)
	}
	if got := s.tests["TestMeanwhile"].output.String(); got != "Bad Gateway\n" {
		t.Errorf("of TestMeanwhile is kept %q", got)
	}
}
