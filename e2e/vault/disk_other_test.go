//go:build unix && !linux

package vault

import "testing"

// limitedDisk is for Linux alone.
func limitedDisk(t *testing.T, _ int) string {
	t.Helper()
	t.Skip("needs Linux, to mount a file system of limited size")
	return ""
}
