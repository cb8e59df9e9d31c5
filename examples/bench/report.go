package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// Names of the measured processes.
const (
	processBackend = "backend"
	processProxy   = "proxy"
	processGateway = "gateway"
	processBroker  = "tokenbroker"
)

// enoughRounds are needed for a median that one disturbed round cannot move far.
const enoughRounds = 5

// Report is everything that a run measured.
type Report struct {
	Machine  Machine  `json:"machine"`
	Settings Settings `json:"settings"`
	// Targets are (a) direct, (b) reverse proxy, (c) and (d) gateway.
	Targets []Result `json:"targets"`
	// Credentials is GetCredential as a gateway calls it.
	Credentials *Result `json:"getCredential"`
	// InBroker is the broker's own benchmark of it, in one process.
	InBroker []GoBenchmark `json:"getCredentialInProcess,omitempty"`
}

// Machine is where a run took place.
type Machine struct {
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	CPU       string `json:"cpu,omitempty"`
	Cores     int    `json:"cores"`
	GoVersion string `json:"goVersion"`
	// LoadAverage is that of the last minute, before the run.
	LoadAverage float64 `json:"loadAverage"`
}

// Result is what was measured of one target.
type Result struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	// Process is the one whose CPU time counts: what is between the caller and the
	// backend, or the backend itself.
	Process string  `json:"process"`
	Rounds  []Round `json:"rounds"`
	// Median holds the medians of the rounds.
	Median Measures `json:"median"`
	// Ratio is each round's figure over that of (b) in the same round; nil
	// without a (b).
	Ratio *Measures `json:"ratioToProxy,omitempty"`
}

// Round is one round's sample.
type Round struct {
	Sample
	// CPU is each process's user and system time per call, in microseconds.
	CPU map[string]float64 `json:"cpuMicrosPerCall"`
}

// Measures are the four figures: of absolute values in calls per second and
// microseconds, of ratios without a unit.
type Measures struct {
	CallsPerSecond Spread `json:"callsPerSecond"`
	P50            Spread `json:"p50"`
	P99            Spread `json:"p99"`
	CPUPerCall     Spread `json:"cpuPerCall"`
}

// measures summarizes a figure of every round, as of computes it.
func measures(rounds int, of func(round int) (calls, p50, p99, cpu float64)) Measures {
	var columns [4][]float64
	for i := range rounds {
		calls, p50, p99, cpu := of(i)
		for c, v := range []float64{calls, p50, p99, cpu} {
			if !math.IsNaN(v) && !math.IsInf(v, 0) { // a ratio to a round too short to see its CPU time
				columns[c] = append(columns[c], v)
			}
		}
	}
	return Measures{spread(columns[0]), spread(columns[1]), spread(columns[2]), spread(columns[3])}
}

// summarize fills in the medians.
func (r *Result) summarize() {
	r.Median = measures(len(r.Rounds), func(i int) (float64, float64, float64, float64) {
		round := r.Rounds[i]
		return round.CallsPerSecond, round.P50, round.P99, round.CPU[r.Process]
	})
}

// compare fills in medians and ratios; the second of results is (b).
func compare(results []Result) {
	base := results[1]
	for i := range results {
		r := &results[i]
		r.summarize()
		ratios := measures(len(r.Rounds), func(i int) (float64, float64, float64, float64) {
			a, b := r.Rounds[i], base.Rounds[i]
			return a.CallsPerSecond / b.CallsPerSecond, a.P50 / b.P50, a.P99 / b.P99, a.CPU[r.Process] / b.CPU[base.Process]
		})
		r.Ratio = &ratios
	}
}

// WriteTo prints the report for people.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	r.writeHead(&b)
	r.writeRatios(&b)
	r.writeAbsolute(&b)
	r.writeCredentials(&b)
	fmt.Fprint(&b, "\nCompare ratios, not absolute figures: docs/benchmarks.md says how to read this.\n")
	return b.WriteTo(w)
}

func (r *Report) writeHead(b *bytes.Buffer) {
	s, m := r.Settings, r.Machine
	era, form := "stateless", "event stream"
	if s.Version < stateless {
		era = "sessions"
	}
	if s.PlainJSON {
		form = "plain JSON"
	}
	fmt.Fprintf(b, "\n%s/%s · %d cores%s · %s · load average before the run %.2f\n", m.OS, m.Arch, m.Cores, parenthesized(m.CPU), m.GoVersion, m.LoadAverage)
	fmt.Fprintf(b, "tools/call, MCP %s (%s), %d bytes of text, answered as %s · %d connections, %d rounds of %s each, interleaved\n",
		s.Version, era, s.TextBytes, form, s.Connections, s.Rounds, s.Duration)
	if m.LoadAverage > float64(m.Cores) {
		fmt.Fprintln(b, "The machine was busy before the run: expect wide spreads, and repeat it when the machine is idle.")
	}
	if s.Rounds < enoughRounds {
		fmt.Fprintf(b, "These are fewer than %d rounds: a median of so few says little. Compare nothing with it.\n", enoughRounds)
	}
}

func parenthesized(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func (r *Report) writeRatios(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nRatios to (b) of the same round: median (lowest–highest)\n\n")
	t := table(b)
	fmt.Fprintln(t, "\tcalls/s\tp50\tp99\tCPU per call")
	for _, result := range r.Targets {
		m := result.Ratio
		if result.Process == processProxy {
			fmt.Fprintf(t, "%s\t1\t1\t1\t1\n", label(result))
			continue
		}
		cpu := ratio(m.CPUPerCall)
		if result.Process == processBackend {
			cpu = "–" // nothing is between
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", label(result), ratio(m.CallsPerSecond), ratio(m.P50), ratio(m.P99), cpu)
	}
	_ = t.Flush() // into memory
}

func (r *Report) writeAbsolute(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nAbsolute, median of the rounds\n\n")
	t := table(b)
	fmt.Fprintln(t, "\tcalls/s\tp50\tp99\tCPU per call\tof\tbackend's CPU per call")
	for _, result := range r.Targets {
		backend := measures(len(result.Rounds), func(i int) (float64, float64, float64, float64) {
			return 0, 0, 0, result.Rounds[i].CPU[processBackend]
		}).CPUPerCall
		m := result.Median
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", label(result), count(m.CallsPerSecond.Median), span(m.P50.Median), span(m.P99.Median),
			span(m.CPUPerCall.Median), result.Process, span(backend.Median))
	}
	_ = t.Flush() // into memory
}

// partLabels are what the parts of the broker's own benchmark measure.
func partLabels() map[string]string {
	return map[string]string{
		"warm":         "in process, from memory",
		fromPostgres:   "in process, from Postgres",
		"warm-audited": "in process, from memory, audited",
	}
}

func (r *Report) writeCredentials(b *bytes.Buffer) {
	fmt.Fprintf(b, "\nGetCredential\n\n")
	t := table(b)
	fmt.Fprintln(t, "\tcalls/s\tp50\tp99\tbroker's CPU per call")
	m := r.Credentials.Median
	fmt.Fprintf(t, "e  gRPC with mutual TLS, warm, audited\t%s\t%s\t%s\t%s\n", count(m.CallsPerSecond.Median), span(m.P50.Median), span(m.P99.Median), span(m.CPUPerCall.Median))
	labels := partLabels()
	for _, part := range r.InBroker {
		name := labels[part.Name]
		if name == "" {
			name = "in process, " + part.Name
		}
		fmt.Fprintf(t, "   %s\t%s\n", name, count(part.CallsPerSecond))
	}
	_ = t.Flush() // into memory
}

func table(b *bytes.Buffer) *tabwriter.Writer {
	return tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
}

func label(r Result) string { return r.Key + "  " + r.Name }

func ratio(s Spread) string {
	if s == (Spread{}) {
		return "–" // too little to measure
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Low, s.High)
}

// count writes a number with its thousands apart.
func count(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	var groups []string
	for len(digits) > 3 {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, groups...), " ")
}

// span writes a number of microseconds in a unit that suits it.
func span(micros float64) string {
	if micros >= 1000 {
		return fmt.Sprintf("%.2f ms", micros/1000)
	}
	return fmt.Sprintf("%.0f µs", micros)
}

// Estimate is how long a run takes, roughly and without compiling: to be told
// before it starts.
func (s Settings) Estimate() time.Duration {
	return (4*(s.WarmUp+time.Duration(s.Rounds)*s.Duration) + s.WarmUp + time.Duration(s.Rounds)*s.Duration + 20*time.Second).Round(time.Second)
}
