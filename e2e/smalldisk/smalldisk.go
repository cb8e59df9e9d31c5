package smalldisk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Mount mounts an empty file system of size bytes at dir, which it makes, until the
// test ends. Whatever uses it must have stopped by then: register that after Mount.
// Where mounting is not permitted the test is skipped, or fails with CI=true.
func Mount(t *testing.T, dir string, size int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for Postgres, which is another user
		t.Fatal(err)
	}
	if err := mount(dir, size); err != nil {
		_ = os.Remove(dir)
		const why = "a disk that can be full cannot be mounted: run as root with CAP_SYS_ADMIN on Linux, in a container with --privileged"
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v", why, err)
		}
		t.Skipf("%s: %v", why, err)
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
}

// Fill leaves no block of the disk at dir free, until the returned function makes
// room again.
func Fill(t *testing.T, dir string) (room func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; { // the last blocks too
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}
