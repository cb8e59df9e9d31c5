//go:build unix && !linux

package vault

import "syscall"

// dieWithUs are the attributes of a process that outlives us when we are killed: only
// Linux can tie the two together.
func dieWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
