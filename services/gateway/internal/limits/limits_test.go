package limits

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/caller"
)

const mib = 1 << 20

func newLimits(t *testing.T, cfg Config) *Limits {
	t.Helper()
	cfg.Telemetry = telemetry.Discard()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func person(name string) *caller.Caller {
	return caller.New(caller.Claims{Issuer: "i", Subject: name}, secret.New(name))
}

func lease(m *Memory, who *caller.Caller) *Lease {
	l := &Lease{}
	l.Begin(m, who)
	return l
}

// read is a message of n bytes that does not say how long it is.
func read(l *Lease, n int) error {
	got, err := l.ReadAll(nil, bytes.NewReader(make([]byte, n)), 16*mib, -1)
	if err == nil && len(got) != n {
		return errors.New("it is not whole")
	}
	return err
}

func TestLargeMessagesStayWithinTheMemoryThatThereIs(t *testing.T) {
	t.Parallel()
	m := newLimits(t, Config{MemoryLimit: 200 * mib}).Memory
	var leases []*Lease
	for i := range 100 {
		l := lease(m, person(string(rune('a'+i))))
		if err := read(l, 4*mib); err != nil {
			if fault.ReasonOf(err) != ReasonBusy || fault.KindOf(err) != fault.Unavailable {
				t.Fatalf("refused with %v", err)
			}
			l.Release()
			break
		}
		leases = append(leases, l)
	}
	if n := len(leases); n < 5 || n > 12 {
		t.Errorf("%d messages of 4 MiB are held, want about 50 MiB", n)
	}
	if err := read(lease(m, person("small")), Free-1); err != nil {
		t.Errorf("a small message is refused as well: %v", err)
	}
	for _, l := range leases {
		l.Release()
	}
	if used := m.used.Load(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
}

func TestOnePersonLeavesMemoryToOthers(t *testing.T) {
	t.Parallel()
	m := newLimits(t, Config{MemoryLimit: 200 * mib}).Memory
	for read(lease(m, person("greedy")), mib) == nil {
	}
	if err := read(lease(m, person("modest")), 8*mib); err != nil {
		t.Errorf("another person's message: %v", err)
	}
	for i := range m.shards {
		for who, held := range m.shards[i].held {
			if held > m.share {
				t.Errorf("%s has %d bytes", who, held)
			}
		}
	}
}

func TestTheLargestMessageFitsWhateverTheMemoryLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{mib, 200 * mib, math.MaxInt64} {
		l := lease(newLimits(t, Config{MemoryLimit: limit}).Memory, person("alice"))
		if err := read(l, 16*mib); err != nil {
			t.Errorf("with a limit of %d: %v", limit, err)
		}
		l.Release()
	}
}

// A client, or a backend, that only says that a message is long gets nothing for it.
func TestWordsCostNoMemory(t *testing.T) {
	t.Parallel()
	m := newLimits(t, Config{MemoryLimit: 200 * mib}).Memory
	l := lease(m, person("alice"))
	if _, err := l.ReadAll(nil, io.MultiReader(strings.NewReader("{"), iotest.ErrReader(io.ErrUnexpectedEOF)), 16*mib, 16*mib); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if used := m.used.Load(); used != 0 {
		t.Errorf("one byte of a message takes %d", used)
	}
}

func TestAMessageIsReadWhole(t *testing.T) {
	t.Parallel()
	const limit = 300 << 10
	for _, size := range []int{0, 1, firstSize - 1, firstSize, Free, Free + 1, 200 << 10, limit, limit + 1} {
		for _, expect := range []int64{-1, 0, int64(size), 1, limit, limit + 1} {
			want := bytes.Repeat([]byte("x"), size)
			m := newLimits(t, Config{}).Memory
			l := lease(m, person("alice"))
			got, err := l.ReadAll(nil, iotest.HalfReader(bytes.NewReader(want)), limit, expect)
			switch {
			case size > limit || expect > limit:
				if !errors.Is(err, ErrTooLarge) {
					t.Errorf("%d bytes that say %d: %v", size, expect, err)
				}
			case err != nil || !bytes.Equal(got, want):
				t.Errorf("%d bytes that say %d: %d bytes, %v", size, expect, len(got), err)
			case cap(got) > Free && m.used.Load() != int64(cap(got)), cap(got) <= Free && m.used.Load() != 0:
				t.Errorf("%d bytes that say %d: %d bytes are taken, %d are counted", size, expect, cap(got), m.used.Load())
			}
			l.Release()
			if used := m.used.Load(); used != 0 {
				t.Errorf("%d bytes that say %d: %d bytes are not given back", size, expect, used)
			}
		}
	}
}

func TestMemoryIsCountedUnderLoad(t *testing.T) {
	t.Parallel()
	m := newLimits(t, Config{MemoryLimit: 200 * mib}).Memory
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 5 {
				l := lease(m, person(string(rune('a'+i%8))))
				_ = read(l, 256<<10)
				if used := m.used.Load(); used > m.size+32*mib { // those who just find out that there is none left
					t.Errorf("%d bytes", used)
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	if used := m.used.Load(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
}

func TestOnePersonHasSoManyRequestsAtATime(t *testing.T) {
	t.Parallel()
	running, release := make(chan struct{}), make(chan struct{})
	handler := newLimits(t, Config{MaxRequests: 2}).Requests.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Wait") != "" {
			running <- struct{}{}
			<-release
		}
	}))
	do := func(who *caller.Caller, method, wait string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/mcp", nil)
		r.Header.Set("Wait", wait)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r.WithContext(caller.NewContext(r.Context(), who)))
		return w
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { do(person("alice"), http.MethodPost, "y") })
		<-running
	}
	refused := do(person("alice"), http.MethodPost, "")
	if refused.Code != http.StatusTooManyRequests || refused.Header().Get("Retry-After") == "" || !strings.Contains(refused.Body.String(), "2 requests of yours") {
		t.Errorf("the third request: %d %v %s", refused.Code, refused.Header(), refused.Body)
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another person":  do(person("bob"), http.MethodPost, ""),
		"a stream":        do(person("alice"), http.MethodGet, ""),
		"nobody known":    do(caller.AnonymousCaller(), http.MethodPost, ""),
		"nobody known 2.": do(caller.AnonymousCaller(), http.MethodDelete, ""),
	} {
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	close(release)
	wg.Wait()
	if w := do(person("alice"), http.MethodPost, ""); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d", w.Code)
	}
}

func TestSessionsAreOpenedAtABoundedRate(t *testing.T) {
	t.Parallel()
	r := newLimits(t, Config{}).Sessions
	now := time.Now()
	r.now = func() time.Time { return now }
	take := func(who *caller.Caller) (n int) {
		for ; n < 1000 && r.Take(who) == nil; n++ {
		}
		return n
	}
	if n := take(person("alice")); n != sessionBurst {
		t.Errorf("%d at once", n)
	}
	err := r.Take(person("alice"))
	if f := fault.From(err); f.Kind != fault.Exhausted || f.Reason != ReasonSessions || f.RetryAfter <= 0 || f.RetryAfter > sessionEvery {
		t.Errorf("beyond: %v, come again in %s", err, f.RetryAfter)
	}
	if n := take(person("bob")); n != sessionBurst {
		t.Errorf("another person: %d", n)
	}
	now = now.Add(10 * sessionEvery)
	if n := take(person("alice")); n != 10 {
		t.Errorf("ten intervals later: %d", n)
	}
	now = now.Add(time.Hour)
	if n := take(person("alice")); n != sessionBurst {
		t.Errorf("an hour later: %d", n)
	}
	if n := take(caller.AnonymousCaller()); n != 1000 {
		t.Errorf("callers who cannot be told apart: %d", n)
	}
}
