package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// callTimeout bounds one call.
const callTimeout = 10 * time.Second

// target is an MCP endpoint and how it is called.
type target struct {
	// address is dialed, host is what the request says, and path is asked for.
	address, host, path string
	// token is the bearer token of each call.
	token string
	// tool is the name of the tool echo there.
	tool string
	// version of MCP.
	version string
	// padding lengthens the text of each call; letters and digits only.
	padding string
}

// load is a set of open connections to one target, each of which has one call
// under way at a time: a closed loop.
type load struct{ clients []*client }

// connect opens the connections, and their MCP sessions in the session era.
func connect(ctx context.Context, t target, connections int) (_ *load, err error) {
	l := &load{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for range connections {
		c := &client{target: &t, head: head(&t), nextID: firstID}
		var dialer net.Dialer
		if c.conn, err = dialer.DialContext(ctx, "tcp", t.address); err != nil {
			return nil, err
		}
		l.clients = append(l.clients, c)
		c.in = bufio.NewReaderSize(c.conn, 16<<10)
		if t.version < stateless {
			if err := c.initialize(); err != nil {
				return nil, fmt.Errorf("initialize: %w", err)
			}
		}
	}
	return l, nil
}

// run calls until d has passed and every call has its answer. The first error
// ends it.
func (l *load) run(ctx context.Context, d time.Duration) (Sample, error) {
	latencies := make([][]time.Duration, len(l.clients))
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	end := start.Add(d)
	for i, c := range l.clients {
		group.Go(func() error {
			if err := c.conn.SetDeadline(end.Add(callTimeout)); err != nil {
				return err
			}
			for before := time.Now(); before.Before(end); {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := c.call(); err != nil {
					return err
				}
				now := time.Now()
				latencies[i] = append(latencies[i], now.Sub(before))
				before = now
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Sample{}, err
	}
	return summarize(slices.Concat(latencies...), time.Since(start)), nil
}

func (l *load) close() {
	for _, c := range l.clients {
		c.conn.Close()
	}
}

// client is one connection. It writes HTTP/1.1 itself: a whole HTTP client would
// take more of the processor than the proxy that is measured.
type client struct {
	target  *target
	head    []byte
	conn    net.Conn
	in      *bufio.Reader
	session string
	nextID  int64

	// Reused from call to call.
	request, body, want []byte
	answer              bytes.Buffer
}

// call calls the tool once and checks the answer.
func (c *client) call() error {
	id := c.nextID
	c.nextID++
	c.body = appendCall(c.body[:0], c.target, id)
	status, header, err := c.post("tools/call", c.target.tool)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%w: status %d: %.300s", errWrongAnswer, status, c.answer.Bytes())
	}
	c.want = appendText(c.want[:0], id, c.target.padding)
	return checkCall(header, c.answer.Bytes(), id, c.want)
}

// initialize opens an MCP session (MCP 2025-11-25, lifecycle).
func (c *client) initialize() error {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	c.body = fmt.Appendf(c.body[:0], `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":%q,`+
		`"capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`, c.target.version)
	status, header, err := c.post("initialize", "")
	if err != nil {
		return err
	}
	if c.session = header.Get("Mcp-Session-Id"); status != http.StatusOK || c.session == "" {
		return fmt.Errorf("%w: status %d, session %q: %.300s", errWrongAnswer, status, c.session, c.answer.Bytes())
	}
	c.body = append(c.body[:0], `{"jsonrpc":"2.0","method":"notifications/initialized"}`...)
	if status, _, err = c.post("notifications/initialized", ""); err != nil {
		return err
	}
	if status != http.StatusAccepted {
		return fmt.Errorf("%w: notifications/initialized: status %d", errWrongAnswer, status)
	}
	return nil
}

// post sends c.body and reads the answer's body into c.answer.
func (c *client) post(method, name string) (status int, header http.Header, err error) {
	b := append(c.request[:0], c.head...)
	if c.target.version >= stateless {
		b = append(append(append(b, "Mcp-Method: "...), method...), "\r\n"...)
		if name != "" {
			b = append(append(append(b, "Mcp-Name: "...), name...), "\r\n"...)
		}
	}
	if c.session != "" {
		b = append(append(append(b, "Mcp-Session-Id: "...), c.session...), "\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(c.body)), 10)
	b = append(append(b, "\r\n\r\n"...), c.body...)
	c.request = b
	if _, err := c.conn.Write(b); err != nil {
		return 0, nil, err
	}
	return c.read()
}

var errClosing = errors.New("the server ends the connection")

func (c *client) read() (status int, header http.Header, err error) {
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer's head: %w", err)
	}
	defer resp.Body.Close()
	c.answer.Reset()
	if _, err := c.answer.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
		return 0, nil, fmt.Errorf("read the answer's body, after %d bytes of it: %w", c.answer.Len(), err)
	}
	if c.answer.Len() > maxAnswer {
		return 0, nil, fmt.Errorf("%w: more than %d bytes", errWrongAnswer, maxAnswer)
	}
	if resp.Close && resp.StatusCode == http.StatusOK {
		return 0, nil, errClosing // a new connection per call would measure something else
	}
	return resp.StatusCode, resp.Header, nil
}
