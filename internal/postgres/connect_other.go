//go:build !linux

package postgres

import (
	"context"
	"syscall"
)

// boundUnacknowledged leaves it to the system.
func boundUnacknowledged(context.Context, string, string, syscall.RawConn) error { return nil }
