package subprocess

import "syscall"

// Attributes of a process whose death follows ours.
func Attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
