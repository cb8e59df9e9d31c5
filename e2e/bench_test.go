package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestBenchPrintsAFigureForEveryRow(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bench.json")
	out, err := runDev(t, "bench", "--source", "..", "--connections", "2", "--rounds", "1", "--duration", "200ms", "--warm-up", "100ms", "--json", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const number = `[\d .]+( ms| µs)?`
	const ratios = `(1|–|\d+\.\d\d \(\d+\.\d\d–\d+\.\d\d\))`
	for _, row := range []string{"a  direct", "b  reverse proxy", "c  gateway /mcp/bench", "d  gateway /mcp"} {
		for _, columns := range []string{"( +" + ratios + "){4}", "( {3,}" + number + "){4} +(backend|proxy|gateway) +" + number} {
			if !regexp.MustCompile(`(?m)^` + row + columns + `$`).MatchString(out) {
				t.Errorf("no row %q like %s in\n%s", row, columns, out)
			}
		}
	}
	for _, row := range []string{"e  gRPC with mutual TLS, warm, audited", "   in process, from memory", "   in process, from Postgres", "   in process, from memory, audited"} {
		if !regexp.MustCompile(`(?m)^` + row + ` {3,}\d`).MatchString(out) {
			t.Errorf("no row %q in\n%s", row, out)
		}
	}
	if !strings.Contains(out, "fewer than 5 rounds") {
		t.Errorf("nothing says that one round is too few:\n%s", out)
	}
	var report struct {
		Targets       []struct{ Rounds []struct{ Calls int } }
		GetCredential struct{ Rounds []struct{ Calls int } }
	}
	if text, err := os.ReadFile(file); err != nil || json.Unmarshal(text, &report) != nil || len(report.Targets) != 4 ||
		len(report.Targets[3].Rounds) != 1 || report.Targets[3].Rounds[0].Calls == 0 || len(report.GetCredential.Rounds) != 1 {
		t.Errorf("--json wrote %s, %v", text, err)
	}
}
