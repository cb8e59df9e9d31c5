package pgcluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
func Binaries() (string, error) {
	if dir := os.Getenv(BinDirEnv); dir != "" {
		if complete(dir) {
			return dir, nil
		}
		return "", fault.Newf(fault.Precondition, "%s=%s has no initdb and postgres", BinDirEnv, dir).
			WithReason("postgres_missing")
	}
	if path, err := exec.LookPath("postgres"); err == nil && complete(filepath.Dir(path)) {
		return filepath.Dir(path), nil
	}
	var found []string
	for _, pattern := range installed {
		matches, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, dir := range matches {
			if complete(dir) {
				found = append(found, dir)
			}
		}
	}
	if len(found) == 0 {
		return "", fault.New(fault.Precondition, "PostgreSQL is not installed: run `apt-get install postgresql` "+
			"(or your system's equivalent), or set "+BinDirEnv+" to the folder with initdb and postgres").
			WithReason("postgres_missing")
	}
	return slices.MaxFunc(found, func(a, b string) int { return majorOf(a) - majorOf(b) }), nil
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

// majorOf returns the first number in a path, or 0.
func majorOf(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(digits[0])
	return n
}
