package postgres_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"chatelaine.dev/internal/postgres"
)

// A service whose database vanished without a word must not wait a quarter of an hour.
func TestAServerThatVanishesIsNoticed(t *testing.T) {
	t.Parallel()
	pool := open(t, postgres.Config{URL: onTCP(t).TCPURL("postgres")})
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	raw, err := conn.Conn().PgConn().Conn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tcpUserTimeout = 0x12 // tcp(7), in milliseconds; the others are in seconds
	for _, tt := range []struct {
		name          string
		level, option int
		most          int
	}{
		{"the first probe", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 30},
		{"the next", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 10},
		{"the number of probes", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 5},
		{"what is not acknowledged", syscall.IPPROTO_TCP, tcpUserTimeout, int(time.Minute.Milliseconds())},
		{"keep-alive", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	} {
		var value int
		var optErr error
		if err := raw.Control(func(fd uintptr) { value, optErr = syscall.GetsockoptInt(int(fd), tt.level, tt.option) }); err != nil {
			t.Fatal(err)
		}
		if optErr != nil || value <= 0 || value > tt.most {
			t.Errorf("%s: %d, %v", tt.name, value, optErr)
		}
	}
}
