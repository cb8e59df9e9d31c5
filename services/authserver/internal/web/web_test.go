package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/web"
)

func TestAPreflightIsAnsweredBeforeTheHandlerSeesIt(t *testing.T) {
	t.Parallel()
	h := web.CORS(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }), "POST")
	preflight := httptest.NewRecorder()
	h.ServeHTTP(preflight, httptest.NewRequest(http.MethodOptions, "/", nil))
	if preflight.Code != http.StatusNoContent || preflight.Header().Get("Access-Control-Allow-Methods") != "POST" ||
		!strings.Contains(preflight.Header().Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("%d %v", preflight.Code, preflight.Header())
	}
	call := httptest.NewRecorder()
	h.ServeHTTP(call, httptest.NewRequest(http.MethodPost, "/", nil))
	if call.Code != http.StatusUnauthorized || call.Header().Get("Access-Control-Allow-Origin") != "*" ||
		call.Header().Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%d %v", call.Code, call.Header())
	}
}

func TestABodyOverTheLimitIsRefusedWhole(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"body": func(w http.ResponseWriter, r *http.Request) error {
			body, err := web.ReadBody(w, r, 10)
			if body != nil {
				t.Error("a part of the body came back")
			}
			return err
		},
		"form": func(w http.ResponseWriter, r *http.Request) error { return web.ReadForm(w, r, 10) },
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("a=0123456789"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if err := read(httptest.NewRecorder(), r); fault.ReasonOf(err) != web.ReasonTooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOneAddressCannotUseUpTheAllowanceOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := web.NewLimiter(60, 3)
		greedy, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		for i := range 3 {
			if ok, _ := l.Allow(greedy); !ok {
				t.Fatalf("call %d refused within the burst", i)
			}
		}
		ok, wait := l.Allow(greedy)
		if ok || wait <= 0 || wait > time.Second {
			t.Errorf("over the burst: %v, wait %v", ok, wait)
		}
		if ok, _ := l.Allow(other); !ok {
			t.Error("another address pays for it")
		}
		time.Sleep(time.Second)
		if ok, _ := l.Allow(greedy); !ok {
			t.Error("refused after waiting")
		}
		for i := range 3 {
			addr := netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)})
			if ok, _ := l.Allow(addr); !ok {
				t.Error("refused within the burst of a network")
			}
		}
		if ok, _ := l.Allow(netip.AddrFrom16([16]byte{0x20, 1, 15: 9})); ok {
			t.Error("each address of one /64 has an allowance of its own")
		}
	})
}

func TestAGreedyNetworkDoesNotLockOutItsSite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := web.NewLimiter(60, 3)
		at := func(network byte) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, 7: network}) }
		for range 1000 {
			l.Allow(at(1))
		}
		for network := byte(2); network < 9; network++ { // seven bursts are left to the site
			for range 3 {
				if ok, _ := l.Allow(at(network)); !ok {
					t.Fatalf("network %d pays for what its neighbour was refused", network)
				}
			}
		}
		if ok, _ := l.Allow(at(9)); ok {
			t.Error("the site has more than eight bursts")
		}
	})
}

func TestWhoHasManyAddressesHasNotManyAllowances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := web.NewLimiter(60, 10)
		allowed := 0
		for i := range 1000 { // networks of one site
			if ok, _ := l.Allow(netip.AddrFrom16([16]byte{0x20, 1, 6: byte(i >> 8), 7: byte(i)})); ok {
				allowed++
			}
		}
		if allowed != 80 {
			t.Errorf("a site got %d calls at once, want eight bursts of ten", allowed)
		}
		// Fill the table with strangers, then come back under addresses that were forgotten.
		l = web.NewLimiter(60, 10)
		at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
		for i := range 10_000 {
			if ok, _ := l.Allow(at(i)); !ok {
				t.Fatal("a stranger is refused while there is room")
			}
		}
		allowed = 0
		for i := range 1000 {
			for range 10 {
				if ok, _ := l.Allow(at(10_000 + i)); ok {
					allowed++
				}
			}
		}
		if allowed > 100 {
			t.Errorf("new addresses got %d calls at once in a full table, want 100 at most", allowed)
		}
	})
}

func TestOnlyATrustedProxyMaySayWhoCalls(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tt := range []struct {
		peer, forwarded, want string
	}{
		{"192.0.2.9:1", "", "192.0.2.9"},
		{"192.0.2.9:1", "198.51.100.1", "192.0.2.9"},
		{"10.0.0.1:1", "198.51.100.1", "198.51.100.1"},
		{"10.0.0.1:1", "203.0.113.7, 198.51.100.1, 10.0.0.2", "198.51.100.1"},
		{"10.0.0.1:1", "garbage", "10.0.0.1"},
		{"10.0.0.1:1", "", "10.0.0.1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := web.ClientAddress(r, trusted).String(); got != tt.want {
			t.Errorf("%s with %q: %s, want %s", tt.peer, tt.forwarded, got, tt.want)
		}
	}
}
