package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/config"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestTheTableIsWhatPeopleAreShown(t *testing.T) {
	t.Parallel()
	rounds := func(calls, p50, p99 float64, cpu map[string]float64) []Round {
		var all []Round
		for _, f := range []float64{1, 1.1, 0.8} { // how fast the machine was
			r := Round{Sample: Sample{CallsPerSecond: calls * f, P50: p50 / f, P99: p99 / f}, CPU: cpu}
			all = append(all, r)
		}
		return all
	}
	r := &Report{
		Machine:  Machine{OS: "linux", Arch: "amd64", CPU: "Some CPU", Cores: 2, GoVersion: "go1.26.0", LoadAverage: 0.25},
		Settings: Settings{Connections: 16, Rounds: 3, Duration: 2 * time.Second, TextBytes: 256, Version: stateless},
		Targets: []Result{
			{Key: "a", Name: "direct", Process: processBackend, Rounds: rounds(12345, 800, 2500, map[string]float64{processBackend: 90})},
			{Key: "b", Name: "reverse proxy", Process: processProxy, Rounds: rounds(6000, 1600, 5000, map[string]float64{processProxy: 60, processBackend: 95})},
			{Key: "c", Name: "gateway /mcp/bench", Process: processGateway, Rounds: rounds(4000, 2400, 10000, map[string]float64{processGateway: 75, processBackend: 96})},
			{Key: "d", Name: "gateway /mcp", Process: processGateway, Rounds: rounds(999, 3200, 20000, map[string]float64{processGateway: 150, processBackend: 97})},
		},
		Credentials: &Result{Process: processBroker, Rounds: rounds(3000, 5000, 12000, map[string]float64{processBroker: 200})},
		InBroker: []GoBenchmark{
			{Name: "warm", CallsPerSecond: 1234567}, {Name: "postgres", CallsPerSecond: 6543}, {Name: "another", CallsPerSecond: 12},
		},
	}
	compare(r.Targets)
	r.Credentials.summarize()
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.txt")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil { //nolint:gosec // a golden file
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the table differs from %s (-update writes it anew):\n%s", golden, b.Bytes())
	}
}

func TestAFullRunHasNoWarningAndAShortOneNoNonsense(t *testing.T) {
	t.Parallel()
	round := func(cpu float64) Round {
		return Round{Sample: Sample{CallsPerSecond: 100, P50: 10, P99: 20}, CPU: map[string]float64{processBackend: cpu, processProxy: cpu, processGateway: cpu}}
	}
	for _, c := range []struct {
		name     string
		rounds   []Round
		unwanted []string
		want     string
	}{
		{"five rounds", []Round{round(3), round(3), round(3), round(3), round(3)}, []string{"fewer than"}, "1.00 (1.00–1.00)   1.00 (1.00–1.00)   1.00 (1.00–1.00)   1.00 (1.00–1.00)"},
		{"a round without measurable CPU time", []Round{round(0), round(3)}, []string{"NaN", "Inf", "0.00"}, "1.00 (1.00–1.00)   1.00 (1.00–1.00)   1.00 (1.00–1.00)   1.00 (1.00–1.00)"},
		{"no measurable CPU time", []Round{round(0)}, []string{"NaN", "Inf", "0.00"}, "1.00 (1.00–1.00)   1.00 (1.00–1.00)   1.00 (1.00–1.00)   –"},
	} {
		r := &Report{Settings: Settings{Rounds: len(c.rounds)}, Credentials: &Result{Process: processBroker, Rounds: c.rounds}}
		for _, process := range []string{processBackend, processProxy, processGateway} {
			r.Targets = append(r.Targets, Result{Process: process, Rounds: c.rounds})
		}
		compare(r.Targets)
		r.Credentials.summarize()
		var b bytes.Buffer
		if _, err := r.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		_, table, _ := strings.Cut(b.String(), "\n\n") // what describes the machine has figures of its own
		for _, unwanted := range c.unwanted {
			if strings.Contains(table, unwanted) || unwanted == "fewer than" && strings.Contains(b.String(), unwanted) {
				t.Errorf("%s: the table says %q:\n%s", c.name, unwanted, b.String())
			}
		}
		if !strings.Contains(table, c.want) {
			t.Errorf("%s: the table lacks %q:\n%s", c.name, c.want, b.String())
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s: --json cannot be written: %v", c.name, err)
		}
	}
}

func TestTheBrokersOwnFiguresAreRead(t *testing.T) {
	t.Parallel()
	out := `goos: linux
pkg: chatelaine.dev/services/tokenbroker/internal/credential
BenchmarkGetCredential/warm-2         	   10000	    100000 ns/op	     10000 credentials/s	    5000 B/op	      50 allocs/op
BenchmarkGetCredential/postgres-16    	     500	   2000000.5 ns/op	       500 credentials/s
BenchmarkGetCredential/warm-audited   	     500	   4000000 ns/op
BenchmarkOther/postgres-2             	     500	   7 ns/op
PASS
`
	got, err := parseGoBenchmarks([]byte(out))
	want := []GoBenchmark{
		{Name: "warm", CallsPerSecond: 10000, NanosPerCall: 100000},
		{Name: "postgres", CallsPerSecond: 1e9 / 2000000.5, NanosPerCall: 2000000.5},
		{Name: "warm-audited", CallsPerSecond: 250, NanosPerCall: 4000000},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	for _, bad := range []string{"x ns/op", "0 ns/op", "-1 ns/op"} {
		if got, err := parseGoBenchmarks([]byte("BenchmarkGetCredential/warm-2 1 " + bad)); err == nil {
			t.Errorf("%q parsed as %+v", bad, got)
		}
	}
}

func TestTheBackendIsPartOfTheDemosResources(t *testing.T) {
	t.Parallel()
	demo, err := os.ReadFile(filepath.Join("..", "stack", "resources.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	set, problems := config.Parse(config.Source{Name: "resources.yaml", Data: []byte(addBackend(string(demo), "127.0.0.1:4711"))})
	if err := problems.Err(); err != nil {
		var text strings.Builder
		_, _ = problems.WriteTo(&text)
		t.Fatal(err, text.String())
	}
	b, ok := set.Deployment().Backend(backendName)
	if !ok || b.Strategy.UpstreamInject == nil || b.Strategy.UpstreamInject.Provider != "octohub" || b.RemoteURL != "http://localhost:4711/mcp" {
		t.Errorf("the backend is %+v", b)
	}
}
