//go:build unix

package pgcluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"chatelaine.dev/internal/fault"
)

// account is whom postgres runs as; nil means as ourselves.
type account struct {
	name     string
	uid, gid uint32
}

// runAs returns nil for an ordinary user, and the user postgres or nobody for root.
func runAs() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil && uid != 0 {
			return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, fault.New(fault.Precondition, "Postgres refuses to run as root, and there is no user postgres or nobody: run as an ordinary user").
		WithReason("no_user")
}

// ownDir makes a folder that only the account (and root) can read. The folders
// above are made when they are missing.
func (a *account) ownDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot make "+filepath.Dir(dir))
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fault.Wrap(fault.Precondition, err, "cannot make "+dir)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot use "+dir)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || !a.mayOwn(stat.Uid) {
		return fault.Newf(fault.Precondition, "%s is not a folder of ours", dir).WithReason("data_unusable")
	}
	if a == nil {
		return nil
	}
	if !a.reaches(filepath.Dir(dir)) {
		return fault.Newf(fault.Precondition, "user %s, whom Postgres runs as, cannot reach %s: choose a folder outside of private homes", a.name, dir).
			WithReason("data_unreachable")
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot hand over "+dir)
	}
	return nil
}

// mayOwn keeps us out of folders that a stranger put in our way.
func (a *account) mayOwn(uid uint32) bool {
	if a == nil {
		return int(uid) == os.Geteuid()
	}
	return uid == 0 || uid == a.uid
}

// reaches reports whether the account can enter dir and every folder above it.
func (a *account) reaches(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		need := fs.FileMode(0o001)
		switch {
		case stat.Uid == a.uid:
			need = 0o100
		case stat.Gid == a.gid:
			need = 0o010
		}
		if info.Mode().Perm()&need == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// touch makes an empty file of the account's.
func (a *account) touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if a != nil {
		err = f.Chown(int(a.uid), int(a.gid))
	}
	return errors.Join(err, f.Close())
}

// attributes are those of a child: its own process group, so that Ctrl-C reaches
// us and we stop it in order; the account's rights; and, where the system has
// it, a signal when we die.
func (a *account) attributes(onDeath syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	signalOnParentDeath(attr, onDeath)
	return attr
}

// DataDir returns preferred when Postgres can use it. For root it may lie in a
// private home, which the user that Postgres runs as cannot enter; then it
// returns a folder under /var/tmp whose name is derived from preferred.
func DataDir(preferred string) (string, error) {
	abs, err := filepath.Abs(preferred)
	if err != nil {
		return "", fault.Wrap(fault.Precondition, err, "cannot use the folder "+preferred)
	}
	a, err := runAs()
	if err != nil {
		return "", err
	}
	if a == nil {
		return abs, nil
	}
	existing := filepath.Dir(abs)
	for existing != filepath.Dir(existing) {
		if _, err := os.Stat(existing); err == nil {
			break
		}
		existing = filepath.Dir(existing)
	}
	if a.reaches(existing) {
		return abs, nil
	}
	sum := sha256.Sum256([]byte(abs))
	return filepath.Join("/var/tmp", "chatelaine-pg-"+hex.EncodeToString(sum[:6])), nil
}
