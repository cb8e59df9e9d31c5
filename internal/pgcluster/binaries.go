package pgcluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"chatelaine.dev/internal/fault"
)

// BinDirEnv names the environment variable with the folder of initdb and postgres.
const BinDirEnv = "PGBINDIR"

// installed are the folders of packages; * is the major version.
var installed = []string{
	"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                   // PGDG on Red Hat
	"/usr/libexec/postgresql*",           // Alpine
	"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, Apple silicon
	"/usr/local/opt/postgresql@*/bin",    // Homebrew, Intel
}

// Binaries returns the folder with initdb and postgres. The error is
// Precondition with reason "postgres_missing" and says how to install them.
func Binaries() (string, error) { return find(os.Getenv(BinDirEnv), installed) }

func find(given string, patterns []string) (string, error) {
	if dir := given; dir != "" {
		if complete(dir) {
			return dir, nil
		}
		return "", fault.Newf(fault.Precondition, "%s=%s has no initdb and postgres", BinDirEnv, dir).
			WithReason("postgres_missing")
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		// Through links, because postgres looks for its own files beside itself.
		if path, err = filepath.EvalSymlinks(path); err == nil && complete(filepath.Dir(path)) {
			return filepath.Dir(path), nil
		}
	}
	if dir := newest(patterns); dir != "" {
		return dir, nil
	}
	return "", fault.New(fault.Precondition, "PostgreSQL is not installed: run `apt-get install postgresql` "+
		"(or your system's equivalent), or set "+BinDirEnv+" to the folder with initdb and postgres").
		WithReason("postgres_missing")
}

// newest returns the folder of the highest version, or "".
func newest(patterns []string) string {
	best := ""
	for _, pattern := range patterns {
		prefix, _, _ := strings.Cut(pattern, "*")
		matches, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, dir := range matches {
			if complete(dir) && (best == "" || major(dir, prefix) > major(best, prefix)) {
				best = dir
			}
		}
	}
	return best
}

func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// major returns the number that follows prefix in path, or 0.
func major(path, prefix string) int {
	digits, _, _ := strings.Cut(strings.TrimPrefix(path, prefix), "/")
	n, _ := strconv.Atoi(digits)
	return n
}
