package front_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"chatelaine.dev/examples/front"
)

// names is DNS for one name; loopback has many addresses.
type names struct {
	mu        sync.Mutex
	addresses []string
}

func (n *names) LookupHost(context.Context, string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addresses == nil {
		return nil, errors.New("no such host")
	}
	return slices.Clone(n.addresses), nil
}

// listen opens one port on several loopback addresses, as replicas have it.
func listen(t *testing.T, addresses ...string) (port string, listeners []net.Listener) {
	t.Helper()
	var lc net.ListenConfig
	for range 50 {
		port = "0"
		listeners = nil
		for _, a := range addresses {
			l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort(a, port))
			if err != nil {
				break
			}
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
		}
		if len(listeners) == len(addresses) {
			return port, listeners
		}
		for _, l := range listeners {
			l.Close()
		}
	}
	t.Fatal("no port is free on all addresses")
	return "", nil
}

type replica struct {
	server *httptest.Server
	served atomic.Int64
}

func serve(t *testing.T, l net.Listener, h func(http.ResponseWriter, *http.Request)) *replica {
	t.Helper()
	r := &replica{}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.served.Add(1)
		h(w, req)
	}))
	r.server.Listener.Close()
	r.server.Listener = l
	r.server.Start()
	t.Cleanup(r.server.Close)
	return r
}

func newFront(t *testing.T, port string, dns *names) string {
	t.Helper()
	h, err := front.New(front.Config{To: net.JoinHostPort("replicas.test", port), Resolver: dns, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Host, r.Header.Get("X-Forwarded-For"), body)
}

func TestEveryReplicaGetsItsShareAndTheRequestUnchanged(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1", "127.0.0.2")
	a, b := serve(t, listeners[0], echo), serve(t, listeners[1], echo)
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1", "127.0.0.2"}})
	for range 20 {
		status, text := post(t, url, "the body")
		if want := strings.TrimPrefix(url, "http://") + " 127.0.0.1 the body"; status != http.StatusOK || text != want {
			t.Fatalf("%d %q, want %q", status, text, want)
		}
	}
	if a.served.Load() != 10 || b.served.Load() != 10 {
		t.Errorf("the replicas served %d and %d of 20", a.served.Load(), b.served.Load())
	}
}

func TestTheFirstRequestsMayComeAtOnce(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1")
	serve(t, listeners[0], echo)
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1"}})
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			resp, err := http.Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
		})
	}
	group.Wait()
}

func TestADeadReplicaCostsNoRequest(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1", "127.0.0.2")
	a, b := serve(t, listeners[0], echo), serve(t, listeners[1], echo)
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1", "127.0.0.2"}})
	for i := range 40 {
		if i == 20 {
			a.server.Close()
		}
		if status, text := post(t, url, "the body"); status != http.StatusOK || !strings.HasSuffix(text, "the body") {
			t.Fatalf("request %d: %d %q", i, status, text)
		}
	}
	if a.served.Load() != 10 || b.served.Load() != 30 {
		t.Errorf("the replicas served %d and %d of 40", a.served.Load(), b.served.Load())
	}
}

func TestARequestThatReachedAReplicaIsNotSentTwice(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1", "127.0.0.2")
	cut := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	a, b := serve(t, listeners[0], cut), serve(t, listeners[1], cut)
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1", "127.0.0.2"}})
	if status, _ := post(t, url, "a payment"); status != http.StatusBadGateway {
		t.Errorf("status %d, want 502", status)
	}
	if n := a.served.Load() + b.served.Load(); n != 1 {
		t.Errorf("the request was sent %d times", n)
	}
}

func TestWithoutAReplicaTheFrontSaysSo(t *testing.T) {
	t.Parallel()
	url := newFront(t, "1", &names{})
	if status, _ := post(t, url, ""); status != http.StatusBadGateway {
		t.Errorf("status %d, want 502", status)
	}
	resp, err := http.Get(url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the front's own health is %s", resp.Status)
	}
	if _, err := front.New(front.Config{To: "nowhere"}); err == nil {
		t.Error("an address without a port is accepted")
	}
}

func TestAReplicaThatRefusesALargeRequestIsHeard(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1")
	serve(t, listeners[0], func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "100-continue" {
			t.Error("the body is sent without a question")
		}
		http.Error(w, "no", http.StatusTeapot)
	})
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1"}})
	for range 20 {
		if status, text := post(t, url, strings.Repeat("x", 5<<20)); status != http.StatusTeapot || text != "no\n" {
			t.Fatalf("%d %q", status, text)
		}
	}
}

func TestARequestThatIsTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1")
	r := serve(t, listeners[0], echo)
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1"}})
	if status, _ := post(t, url, strings.Repeat("x", 17<<20)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", status)
	}
	if r.served.Load() != 0 {
		t.Error("the replica saw it")
	}
}

func TestStreamsArriveAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	port, listeners := listen(t, "127.0.0.1")
	read := make(chan struct{})
	serve(t, listeners[0], func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "one\n")
		_ = http.NewResponseController(w).Flush()
		<-read // the first line must arrive before the second is written
		fmt.Fprint(w, "two\n")
	})
	url := newFront(t, port, &names{addresses: []string{"127.0.0.1"}})
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "one\n" {
		t.Fatalf("%q, %v", line, err)
	}
	close(read)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two\n" {
		t.Errorf("%q, %v", rest, err)
	}
}
