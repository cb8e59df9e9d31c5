//go:build unix && !linux

package subprocess

import "syscall"

// Attributes of a process that outlives us when we are killed: only Linux can
// tie the two together.
func Attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
