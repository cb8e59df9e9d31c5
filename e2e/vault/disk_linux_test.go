package vault

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// limitedDisk is a file system of so many bytes.
func limitedDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system of limited size")
	}
	dir := filepath.Join(shared.dir, "disk")
	must(t, os.MkdirAll(dir, 0o755))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size="+strconv.Itoa(size)); err != nil {
		t.Skipf("needs to mount a file system of limited size: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
