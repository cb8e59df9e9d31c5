package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every platform
// that Go runs on (proc(5), sysconf(_SC_CLK_TCK)).
const tick = 10 * time.Millisecond

var errNoStat = errors.New("not the format of proc(5)")

// parseStat returns the processor time, user and system, of /proc/PID/stat.
func parseStat(stat []byte) (time.Duration, error) {
	// The second field is the program's name in parentheses, which may have
	// spaces and parentheses of its own: the last one closes it.
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errNoStat
	}
	fields := bytes.Fields(stat[end+1:])
	const utime, stime = 14 - 3, 15 - 3 // numbered from 1, and the first two are gone
	if len(fields) <= stime {
		return 0, errNoStat
	}
	var ticks uint64 // two of 38 bits (87 years each) fit a Duration
	for _, field := range [][]byte{fields[utime], fields[stime]} {
		n, err := strconv.ParseUint(string(field), 10, 38)
		if err != nil {
			return 0, fmt.Errorf("%w: %q is no number of ticks", errNoStat, field)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// cpuTime returns the processor time that a process has used so far.
func cpuTime(pid int) (time.Duration, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("processor time of process %d (needs Linux): %w", pid, err)
	}
	used, err := parseStat(stat)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return used, nil
}

// parseModel returns the processor's name in /proc/cpuinfo, if it has one.
func parseModel(cpuinfo []byte) string {
	for line := range bytes.Lines(cpuinfo) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}
