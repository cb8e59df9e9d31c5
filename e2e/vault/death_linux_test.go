package vault

import "syscall"

// dieWithUs are the attributes of a process whose death follows ours.
func dieWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
