package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/examples/mcpserver"
)

// serve returns a target that calls a handler.
func serve(t *testing.T, h http.Handler, version string) target {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	return target{
		address: host, host: host, path: mcpserver.Path, token: tokenPrefix + "someone", tool: toolName,
		version: version, padding: strings.Repeat("x", 200),
	}
}

// attempt runs a short round over two connections.
func attempt(t *testing.T, target target, d time.Duration) (Sample, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := connect(ctx, target, 2)
	if err != nil {
		return Sample{}, err
	}
	defer l.close()
	return l.run(ctx, d)
}

func TestTheLoadIsRightAnswersOfTheRealBackend(t *testing.T) {
	t.Parallel()
	for _, version := range []string{stateless, sessions} {
		for _, plainJSON := range []bool{false, true} {
			for _, proxied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, plain JSON %v, proxied %v", version, plainJSON, proxied), func(t *testing.T) {
					t.Parallel()
					var calls atomic.Int64
					backend := Backend(plainJSON)
					target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						calls.Add(1)
						backend.ServeHTTP(w, r)
					}), version)
					if proxied {
						proxy := Proxy(&url.URL{Scheme: "http", Host: target.host}, 4)
						target.address = serve(t, proxy, version).address
					}
					s, err := attempt(t, target, 50*time.Millisecond)
					if err != nil {
						t.Fatal(err)
					}
					handshakes := int64(0)
					if version == sessions {
						handshakes = 2 * 2 // initialize and initialized, over two connections
					}
					if s.Calls < 2 || calls.Load() != int64(s.Calls)+handshakes {
						t.Errorf("%d calls are counted, the backend saw %d and %d of handshakes", s.Calls, calls.Load()-handshakes, handshakes)
					}
					if s.P50 <= 0 || s.P99 < s.P50 || s.CallsPerSecond <= 0 || s.Seconds < 0.05 {
						t.Errorf("implausible figures: %+v", s)
					}
				})
			}
		}
	}
}

func TestACallWithoutOctohubsTokenFailsTheRun(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"eyJhbGciOiJFUzI1NiJ9.the.callers.own", "ohr_refresh"} {
		target := serve(t, Backend(false), stateless)
		target.token = token
		_, err := attempt(t, target, time.Minute)
		if !errors.Is(err, errWrongAnswer) || !strings.Contains(err.Error(), errNoCredential.Error()) {
			t.Errorf("token %q: error %v, want the backend's", token, err)
		}
	}
}

func TestAWrongAnswerFailsTheRun(t *testing.T) {
	t.Parallel()
	// answer is sent in place of the right one, for the fifth call and later ones.
	for name, answer := range map[string]func(w http.ResponseWriter, right []byte){
		"another status": func(w http.ResponseWriter, right []byte) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write(right)
		},
		"an error in the answer": func(w http.ResponseWriter, right []byte) {
			_, _ = w.Write(bytes.Replace(right, []byte(`"jsonrpc":"2.0"`), []byte(`"jsonrpc":"2.0","error":{"code":1,"message":"x"}`), 1))
		},
		"another id": func(w http.ResponseWriter, right []byte) {
			_, _ = w.Write(bytes.Replace(right, []byte(`"id":1`), []byte(`"id":2`), 1))
		},
		"another text": func(w http.ResponseWriter, right []byte) {
			_, _ = w.Write(bytes.Replace(right, []byte("xxx"), []byte("xyx"), 1))
		},
		"another content type": func(w http.ResponseWriter, right []byte) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(right)
		},
		"no body": func(http.ResponseWriter, []byte) {},
		"a stream without a message": func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, ": nothing\n\ndata:\n\n")
		},
		"too much": func(w http.ResponseWriter, right []byte) {
			_, _ = w.Write(append(right, bytes.Repeat([]byte(" "), maxAnswer)...))
		},
		"a closed connection": func(w http.ResponseWriter, right []byte) {
			w.Header().Set("Connection", "close")
			_, _ = w.Write(right)
		},
		"half an answer": func(w http.ResponseWriter, right []byte) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(right)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := Backend(true)
			var calls atomic.Int64
			target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) < 5 {
					backend.ServeHTTP(w, r)
					return
				}
				right := httptest.NewRecorder()
				backend.ServeHTTP(right, r)
				w.Header().Set("Content-Type", "application/json")
				answer(w, right.Body.Bytes())
			}), stateless)
			if s, err := attempt(t, target, time.Minute); err == nil {
				t.Errorf("a round of %d calls succeeded", s.Calls)
			}
		})
	}
}

func TestACanceledRunEnds(t *testing.T) {
	t.Parallel()
	target := serve(t, Backend(true), stateless)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := connect(ctx, target, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	cancel()
	if _, err := l.run(ctx, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was canceled", err)
	}
}
