package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// brokerBenchmark is the broker's own benchmark, and brokerPackage its package's
// folder in the source tree. The broker serves a session that it has seen lately
// from memory, so that from outside reads from Postgres cannot be had alone.
const (
	brokerBenchmark = "BenchmarkGetCredential"
	brokerPackage   = "services/tokenbroker/internal/credential"
	fromPostgres    = "postgres"
)

// GoBenchmark is one result of `go test -bench`.
type GoBenchmark struct {
	Name           string  `json:"name"`
	CallsPerSecond float64 `json:"callsPerSecond"`
	// NanosPerCall is elapsed time over calls; calls run in parallel.
	NanosPerCall float64 `json:"nanosPerCall"`
}

// buildBrokerBenchmark compiles the benchmark, so that compiling is not in the way
// of what is measured, and returns the program.
func buildBrokerBenchmark(ctx context.Context, source, dir string) (string, error) {
	program := filepath.Join(dir, "credential.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./"+brokerPackage) //nolint:gosec // constants
	cmd.Dir = source
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the broker's benchmark (run from the root of the source tree, or name it with --source): %w\n%s", err, out)
	}
	return program, nil
}

// runBrokerBenchmark runs it, and fails when any of it does.
func runBrokerBenchmark(ctx context.Context, program, source string) ([]GoBenchmark, error) {
	cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench=^"+brokerBenchmark+"$", "-test.benchtime=1s", "-test.timeout=2m")
	cmd.Dir = filepath.Join(source, brokerPackage) // where `go test` runs it
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = exit.Stderr
		}
		return nil, fmt.Errorf("the broker's benchmark: %w\n%s%s", err, out, stderr)
	}
	results, err := parseGoBenchmarks(out)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Name == fromPostgres {
			return results, nil
		}
	}
	return nil, fmt.Errorf("the broker's benchmark has no part %q:\n%s", fromPostgres, out)
}

// parseGoBenchmarks reads the lines of brokerBenchmark's parts:
// NAME/PART-PROCS N, then pairs of a value and its unit.
func parseGoBenchmarks(out []byte) ([]GoBenchmark, error) {
	var results []GoBenchmark
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || !strings.HasPrefix(fields[0], brokerBenchmark+"/") {
			continue
		}
		name := strings.TrimPrefix(fields[0], brokerBenchmark+"/")
		if dash := strings.LastIndexByte(name, '-'); dash > 0 {
			if _, err := strconv.Atoi(name[dash+1:]); err == nil {
				name = name[:dash]
			}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if fields[i+1] != "ns/op" {
				continue
			}
			nanos, err := strconv.ParseFloat(fields[i], 64)
			if err != nil || nanos <= 0 {
				return nil, fmt.Errorf("the broker's benchmark printed %q", line)
			}
			results = append(results, GoBenchmark{Name: name, NanosPerCall: nanos, CallsPerSecond: 1e9 / nanos})
		}
	}
	return results, nil
}
