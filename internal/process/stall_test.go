package process_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/process"
)

// dial is a connection whose other end soon waits for it to read.
func dial(t *testing.T, url, request string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

// What a request holds must not be held for as long as somebody likes.
func TestAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		server process.HTTPServer
		size   int
	}{
		"many writes":         {process.HTTPServer{StallTimeout: 100 * time.Millisecond}, 4 << 10},
		"one large write":     {process.HTTPServer{StallTimeout: 100 * time.Millisecond}, 32 << 20},
		"the answer's bound":  {process.HTTPServer{WriteTimeout: 100 * time.Millisecond}, 4 << 10},
		"the handler's bound": {process.HTTPServer{}, 4 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			tt.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if name == "the handler's bound" {
					_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				}
				chunk := make([]byte, tt.size)
				for {
					if _, err := w.Write(chunk); err != nil {
						ended <- err
						return
					}
				}
			})
			url, _, _ := serve(t, tt.server)
			dial(t, url, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			select {
			case err := <-ended:
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("it ended with %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the handler is still there")
			}
		})
	}
}

// Nobody has to log in to send requests one after another and read no answer.
func TestAStrangerThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	url, _, _ := serve(t, process.HTTPServer{
		StallTimeout: 100 * time.Millisecond,
		Handler:      http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<10)) }),
	})
	c := dial(t, url, "")
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 100)); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still there")
			}
			return
		}
	}
}

func TestALargeAnswerArrivesWhole(t *testing.T) {
	t.Parallel()
	const size = 5<<20 + 3 // more than one piece
	url, _, _ := serve(t, process.HTTPServer{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	})})
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || len(b) != size || strings.Trim(string(b), "x") != "" {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
