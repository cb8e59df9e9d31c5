package bench

import (
	"math"
	"slices"
	"time"
)

// quantile returns the smallest value that at least the share q of the sorted
// values do not exceed (nearest rank); 0 when there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Spread is a median with the lowest and the highest value that it is of.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// spread summarizes values; it is zero when there are none.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Low: sorted[0], High: sorted[n-1]}
}

// Sample is what one round of load measured.
type Sample struct {
	Calls          int     `json:"calls"`
	Seconds        float64 `json:"seconds"`
	CallsPerSecond float64 `json:"callsPerSecond"`
	// P50 and P99 are latencies in microseconds.
	P50 float64 `json:"p50Micros"`
	P99 float64 `json:"p99Micros"`
}

// summarize makes a Sample of the latencies of all calls, which it sorts.
func summarize(latencies []time.Duration, elapsed time.Duration) Sample {
	slices.Sort(latencies)
	return Sample{
		Calls: len(latencies), Seconds: elapsed.Seconds(), CallsPerSecond: float64(len(latencies)) / elapsed.Seconds(),
		P50: micros(quantile(latencies, 0.50)), P99: micros(quantile(latencies, 0.99)),
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// perCall spreads a round's CPU time over its calls, in microseconds.
func perCall(cpu time.Duration, calls int) float64 { return micros(cpu) / float64(max(calls, 1)) }
