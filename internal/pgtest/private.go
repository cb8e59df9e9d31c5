//go:build unix

package pgtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgcluster"
)

const (
	dirPattern = "chatelaine-pgtest-*"
	// staleAfter keeps a sweep away from a folder that another test binary has
	// made and not yet locked.
	staleAfter = time.Minute
)

// private is a cluster in a temporary folder that we hold the lock of.
type private struct {
	*pgcluster.Cluster
	dir  string
	lock *os.File
}

func startPrivate() (*private, error) {
	base, err := baseDir()
	if err != nil {
		return nil, err
	}
	sweep(base)
	dir, err := os.MkdirTemp(base, dirPattern)
	if err != nil {
		return nil, fault.Wrap(fault.Precondition, err, "cannot make a temporary folder")
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(fault.Wrap(fault.Precondition, err, "cannot lock "+dir), os.RemoveAll(dir))
	}
	p := &private{dir: dir, lock: lock}
	// MkdirTemp makes it ours alone; the user of Postgres must pass through.
	if err := os.Chmod(dir, 0o711); err != nil { // entering is all that it allows
		return nil, errors.Join(fault.Wrap(fault.Precondition, err, "cannot open "+dir), p.clear())
	}
	p.Cluster, err = pgcluster.Start(context.Background(), pgcluster.Config{
		Dir: filepath.Join(dir, "pg"), Throwaway: true,
	})
	if err != nil {
		return nil, errors.Join(err, p.clear())
	}
	return p, nil
}

// baseDir is the system's temporary folder, or /tmp when Postgres cannot get there.
func baseDir() (string, error) {
	probe := filepath.Join(os.TempDir(), "chatelaine-pgtest")
	usable, err := pgcluster.DataDir(probe)
	if err != nil {
		return "", err
	}
	if usable == probe {
		return os.TempDir(), nil
	}
	return "/tmp", nil
}

// remove stops the server and removes its folder.
func (p *private) remove() error { return errors.Join(p.Stop(), p.clear()) }

func (p *private) clear() error {
	err := os.RemoveAll(p.dir) // the lock's file too; then nobody can want it
	return errors.Join(err, p.lock.Close())
}

// lockDir takes the folder's lock, which the kernel gives back when we end, in
// whatever way.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes the folders of test binaries that were killed. It is best
// effort: what it cannot remove belongs to somebody else.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, dirPattern)) // the pattern is well formed
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue // its test binary is alive
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}
