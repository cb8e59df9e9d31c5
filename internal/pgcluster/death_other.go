//go:build unix && !linux

package pgcluster

import "syscall"

// Other systems have no such signal: a killed parent leaves the server running
// until somebody stops it.
func signalOnParentDeath(*syscall.SysProcAttr, syscall.Signal) {}
