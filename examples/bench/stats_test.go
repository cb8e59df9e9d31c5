package bench

import (
	"testing"
	"time"
)

func TestQuantilesAreTheNearestRankOfTheMeasuredValues(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for name, tc := range map[string]struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		"median of a hundred":      {hundred, 0.50, 50},
		"99th of a hundred":        {hundred, 0.99, 99},
		"all of them":              {hundred, 1, 100},
		"none of them":             {hundred, 0, 1},
		"median of two":            {[]time.Duration{3, 9}, 0.50, 3},
		"99th of two is the worst": {[]time.Duration{3, 9}, 0.99, 9},
		"one":                      {[]time.Duration{7}, 0.99, 7},
		"no calls":                 {nil, 0.5, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := quantile(tc.sorted, tc.q); got != tc.want {
				t.Errorf("quantile(%v) = %v, want %v", tc.q, got, tc.want)
			}
		})
	}
}

func TestSpreadDoesNotLetOneOddRoundDecide(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		values []float64
		want   Spread
	}{
		"odd number, unsorted": {[]float64{5, 1, 3}, Spread{3, 1, 5}},
		"even number":          {[]float64{4, 1, 2, 100}, Spread{3, 1, 100}},
		"one":                  {[]float64{2}, Spread{2, 2, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := spread(tc.values); got != tc.want {
				t.Errorf("spread = %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestASampleCountsEveryCall(t *testing.T) {
	t.Parallel()
	got := summarize([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond, 9 * time.Millisecond}, 2*time.Second)
	want := Sample{Calls: 4, Seconds: 2, CallsPerSecond: 2, P50: 2000, P99: 9000}
	if got != want {
		t.Errorf("summarize = %+v, want %+v", got, want)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	t.Parallel()
	round := func(calls, p50, p99, own, backend float64) Round {
		return Round{
			Sample: Sample{CallsPerSecond: calls, P50: p50, P99: p99},
			CPU:    map[string]float64{processProxy: own, processGateway: 2 * own, processBackend: backend},
		}
	}
	results := []Result{
		{Process: processBackend, Rounds: []Round{round(200, 1, 2, 0, 30), round(20, 10, 20, 0, 300), round(200, 1, 2, 0, 30)}},
		{Process: processProxy, Rounds: []Round{round(100, 2, 4, 10, 30), round(10, 20, 40, 100, 300), round(100, 2, 4, 10, 30)}},
		// In the second round the whole machine was ten times as slow.
		{Process: processGateway, Rounds: []Round{round(50, 4, 8, 10, 30), round(5, 40, 80, 100, 300), round(60, 4, 8, 10, 30)}},
	}
	compare(results)
	want := Measures{
		CallsPerSecond: Spread{0.5, 0.5, 0.6}, P50: Spread{2, 2, 2}, P99: Spread{2, 2, 2}, CPUPerCall: Spread{2, 2, 2},
	}
	if got := *results[2].Ratio; got != want {
		t.Errorf("gateway over proxy = %+v, want %+v", got, want)
	}
	if got := results[2].Median.CallsPerSecond; got != (Spread{50, 5, 60}) {
		t.Errorf("the gateway's absolute calls per second = %+v", got)
	}
	if got := *results[1].Ratio; got.CallsPerSecond != (Spread{1, 1, 1}) {
		t.Errorf("the proxy over itself = %+v, want 1", got)
	}
	if got := results[0].Ratio.CPUPerCall.Median; got != 3 {
		t.Errorf("the backend's own CPU over the proxy's = %v, want 3", got)
	}
}
