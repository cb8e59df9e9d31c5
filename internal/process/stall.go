package process

import (
	"net"
	"sync/atomic"
	"time"
)

// stallListener bounds each write to the connections that it accepts: a client
// that does not read keeps a request and all that it holds, and net/http has a
// bound for whole answers alone, which streams cannot have.
type stallListener struct {
	net.Listener

	timeout time.Duration
}

// Accept implements net.Listener.
func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: c, timeout: l.timeout}, nil
}

// stallPiece is what a client must take within the timeout, in bytes: it may be
// slow with a large answer.
const stallPiece = 1 << 20

type stallConn struct {
	net.Conn

	timeout time.Duration
	// deadline is the server's own, in Unix nanoseconds; 0 for none.
	deadline atomic.Int64
}

// Write implements net.Conn.
func (c *stallConn) Write(b []byte) (written int, err error) {
	for {
		piece := b[written:min(len(b), written+stallPiece)]
		if err := c.Conn.SetWriteDeadline(c.next()); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(piece)
		if written += n; err != nil || written >= len(b) {
			return written, err
		}
	}
}

// next is the deadline of a write that begins now.
func (c *stallConn) next() time.Time {
	next := time.Now().Add(c.timeout)
	if own := c.deadline.Load(); own != 0 && own < next.UnixNano() {
		return time.Unix(0, own)
	}
	return next
}

// SetDeadline implements net.Conn.
func (c *stallConn) SetDeadline(t time.Time) error {
	c.keep(t)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *stallConn) SetWriteDeadline(t time.Time) error {
	c.keep(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *stallConn) keep(t time.Time) {
	if t.IsZero() {
		c.deadline.Store(0)
		return
	}
	c.deadline.Store(t.UnixNano())
}

// CloseWrite is what net/http does before it closes: the client is to see the
// answer, and not that the rest of its request was not read.
func (c *stallConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
