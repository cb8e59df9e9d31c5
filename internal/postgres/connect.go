package postgres

import (
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// A server that is gone without a word (its machine lost power, a firewall forgot the
// connection) is noticed within half a minute: after so long without traffic it is
// asked whether it is there, and what was sent to it must be acknowledged.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	unacknowledged    = keepAliveIdle + keepAliveCount*keepAliveInterval
)

// setConnect sets how connections are made. What the URL says wins.
func setConnect(cc *pgx.ConnConfig, timeout time.Duration) {
	if timeout <= 0 {
		timeout = DefaultConnectTimeout
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = timeout
	}
	dialer := net.Dialer{
		Timeout: cc.ConnectTimeout, // of each address; pgx bounds the whole
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
		},
		ControlContext: boundUnacknowledged,
	}
	cc.DialFunc = dialer.DialContext
}
