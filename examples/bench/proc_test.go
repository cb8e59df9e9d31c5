package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestProcessorTimeIsUserAndSystem(t *testing.T) {
	t.Parallel()
	// Fields 14 and 15 are 1234 and 56; those around them differ.
	rest := " S 1 10 10 0 -1 4194560 9001 11 12 13 1234 56 77 88 20 0 9 0 4711 1000000 500 18446744073709551615 1 1 0"
	for name, tc := range map[string]struct {
		stat string
		want time.Duration
		fail bool
	}{
		"plain name":                    {"42 (gateway)" + rest, 12900 * time.Millisecond, false},
		"name with spaces, parentheses": {"42 (a) S (b 9 9)" + rest, 12900 * time.Millisecond, false},
		"with the file's newline":       {"42 (gateway)" + rest + "\n", 12900 * time.Millisecond, false},
		"empty":                         {"", 0, true},
		"no name":                       {"42 gateway" + rest, 0, true},
		"cut off":                       {"42 (gateway) S 1 10 10 0 -1 4194560 9001 11 12 13 1234", 0, true},
		"negative":                      {"42 (gateway) S 1 10 10 0 -1 4194560 9001 11 12 13 -1 56 77", 0, true},
		"not a number":                  {"42 (gateway) S 1 10 10 0 -1 4194560 9001 11 12 13 1234 x 77", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := parseStat([]byte(tc.stat))
			if got != tc.want || (err != nil) != tc.fail {
				t.Errorf("parseStat = %v, %v; want %v, an error: %v", got, err, tc.want, tc.fail)
			}
			if err != nil && !errors.Is(err, errNoStat) {
				t.Errorf("the error does not say what is wrong: %v", err)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (gateway) S 1 10 10 0 -1 4194560 9001 11 12 13 1234 56 77"))
	f.Add([]byte("42 (a) b) S 1 1 1 1 1 1 1 1 1 1 1099511627775 1099511627775 1"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if used, err := parseStat(stat); used < 0 || (err != nil && used != 0) {
			t.Errorf("parseStat = %v, %v", used, err)
		}
	})
}

func TestWhatAProcessUsesIsSeen(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		if _, err := cpuTime(os.Getpid()); err == nil {
			t.Error("processor time without /proc")
		}
		return
	}
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// Used until it shows; the test's own deadline ends it otherwise.
	var after time.Duration
	for used := ""; after < before+3*tick; used = fmt.Sprint(len(used)) {
		if after, err = cpuTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cpuTime(-1); err == nil {
		t.Error("no error for a process that does not exist")
	}
}

func TestTheProcessorsNameIsRead(t *testing.T) {
	t.Parallel()
	for cpuinfo, want := range map[string]string{
		"processor\t: 0\nvendor_id\t: X\nmodel name\t: Some CPU @ 3 GHz: fast\ncpu MHz\t: 1\n": "Some CPU @ 3 GHz: fast",
		"processor\t: 0\nBogoMIPS\t: 1\n": "",
		"":                                "",
	} {
		if got := parseModel([]byte(cpuinfo)); got != want {
			t.Errorf("parseModel(%q) = %q, want %q", cpuinfo, got, want)
		}
	}
}
