package outbound

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

func TestPolicyRefusesEveryAddressThatIsNotPublic(t *testing.T) {
	t.Parallel()
	const (
		never = iota
		private
		loopback
		public
	)
	for addr, class := range map[string]int{
		"8.8.8.8": public, "1.1.1.1": public, "93.184.216.34": public, "2606:4700:4700::1111": public, "::ffff:8.8.8.8": public,
		"64:ff9b::808:808": public, "2002:808:808::1": public, "172.32.0.1": public, "11.0.0.1": public, "100.128.0.1": public,

		"127.0.0.1": loopback, "127.9.9.9": loopback, "::1": loopback, "::ffff:127.0.0.1": loopback, "64:ff9b::7f00:1": loopback,

		"10.0.0.1": private, "172.16.0.1": private, "172.31.255.255": private, "192.168.1.1": private, "100.64.0.1": private,
		"100.127.255.255": private, "fd00::1": private, "fc00::1": private, "::ffff:10.0.0.1": private, "2002:a00:1::": private,

		"169.254.169.254": never, "169.254.1.1": never, "fe80::1": never, "fe80::1%eth0": never, "::ffff:169.254.169.254": never,
		"64:ff9b::a9fe:a9fe": never, "2002:a9fe:a9fe::": never,
		"fd00:ec2::254": never, "100.100.100.200": never, "168.63.129.16": never, "192.0.0.192": never,
		"0.0.0.0": never, "0.1.2.3": never, "::": never, "::7f00:1": never, "224.0.0.1": never, "239.255.255.255": never, "ff02::1": never,
		"255.255.255.255": never, "240.0.0.1": never, "192.0.2.1": never, "198.18.0.1": never, "198.51.100.1": never,
		"203.0.113.1": never, "192.0.0.1": never, "192.88.99.1": never, "2001:db8::1": never, "3fff::1": never, "2001::1": never, "64:ff9b:1::1": never,
		"100::1": never, "fec0::1": never, "5f00::1": never, "fd20:ce::254": never,

		// IPv6 beyond what is given out, and IPv4 in disguise.
		"::ffff:0:808:808": never, "::ffff:0:7f00:1": never, "1::1": never, "4000::1": never, "8000::1": never, "fe00::1": never,
		"2606:4700::5efe:808:808": public, "2606:4700::5efe:7f00:1": loopback, "2606:4700::200:5efe:a00:1": private,
		"2606:4700::5efe:a9fe:a9fe": never, "fd00::5efe:808:808": private, "fe80::5efe:808:808": never, "2001:db8::5efe:808:808": never,
	} {
		a := netip.MustParseAddr(addr)
		for policy, want := range map[Policy]bool{
			{}:                    class == public,
			{AllowPrivate: true}:  class == public || class == private,
			{AllowLoopback: true}: class == public || class == loopback,
			Trusted():             class != never,
		} {
			if got := policy.refusal(a) == ""; got != want {
				t.Errorf("%+v allows %s: %v, want %v", policy, addr, got, want)
			}
		}
	}
}

// answers is DNS: each lookup of a name takes the next answer.
type answers struct {
	lists [][]string
	asked atomic.Int32
}

func (a *answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	n := int(a.asked.Add(1)) - 1
	var addrs []netip.Addr
	for _, s := range a.lists[min(n, len(a.lists)-1)] {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs, nil
}

func TestANameThatAlsoResolvesInsideIsRefused(t *testing.T) {
	t.Parallel()
	for _, list := range [][]string{{"127.0.0.1"}, {"8.8.8.8", "10.0.0.1"}, {"169.254.169.254"}, {"::ffff:127.0.0.1"}, {}} {
		g := newGuard(Policy{}, nil)
		g.resolver = &answers{lists: [][]string{list}}
		conn, err := g.DialContext(t.Context(), "tcp", "rebind.example:80")
		if err == nil {
			_ = conn.Close()
			t.Errorf("connected to %v", list)
		}
		if len(list) > 0 && !IsRefused(err) {
			t.Errorf("%v: %v", list, err)
		}
	}
}

func TestTheAddressThatWasCheckedIsTheOneConnectedTo(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	dns := &answers{lists: [][]string{{"127.0.0.1"}, {"10.255.255.1"}}} // the second answer would be another host
	g := newGuard(Policy{AllowLoopback: true}, nil)
	g.resolver = dns
	conn, err := g.DialContext(t.Context(), "tcp", "rebind.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != ln.Addr().String() || dns.asked.Load() != 1 {
		t.Errorf("connected to %s after %d lookups", conn.RemoteAddr(), dns.asked.Load())
	}
}

func TestAddressesAfterADeadOneAreTried(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	g := newGuard(Trusted(), nil)
	g.resolver = &answers{lists: [][]string{{"127.0.0.2", "127.0.0.1"}}} // nothing listens at the first
	conn, err := g.DialContext(t.Context(), "tcp", "two.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func get(t *testing.T, client *http.Client, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return Do(client, req)
}

func TestTheClientRefusesLoopbackUnlessAllowed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, err := get(t, New(Config{}), server.URL+"/secret-path?code=secret-code")
	if fault.ReasonOf(err) != "outbound_refused" || fault.KindOf(err) != fault.Unavailable || !IsRefused(err) {
		t.Errorf("error = %s", fault.Detail(err))
	}
	if text := fault.Detail(err); strings.Contains(text, "secret") {
		t.Errorf("the URL is in the error: %s", text)
	}
	resp, err := get(t, New(Config{Policy: Trusted()}), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

func TestARedirectCannotLeadInside(t *testing.T) {
	t.Parallel()
	var inside atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer target.Close()
	server := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusFound))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")

	resp, err := get(t, New(Config{Dials: Dials{"public.example:80": host}}), "http://public.example/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Errorf("status %d: the redirect was followed", resp.StatusCode)
	}
	if inside.Load() != 0 {
		t.Error("an inside server was reached")
	}
}

func TestATotalDeadlineCoversTheBody(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	resp, err := get(t, New(Config{Policy: Trusted(), Timeout: 100 * time.Millisecond}), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAll(resp, 10); fault.KindOf(err) != fault.Timeout {
		t.Errorf("ReadAll = %v", fault.Detail(err))
	}
}

func TestTimeoutsAndCancellationKeepTheirKind(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	client := New(Config{Policy: Trusted(), Timeout: 50 * time.Millisecond})
	if _, err := get(t, client, server.URL+"?token=secret"); fault.KindOf(err) != fault.Timeout || strings.Contains(fault.Detail(err), "secret") {
		t.Errorf("client's own deadline: %s", fault.Detail(err))
	}
	for want, ctx := range map[fault.Kind]func() (context.Context, context.CancelFunc){
		fault.Timeout: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 20*time.Millisecond)
		},
		fault.Canceled: func() (context.Context, context.CancelFunc) {
			c, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			return c, cancel
		},
	} {
		c, cancel := ctx()
		req, err := http.NewRequestWithContext(c, http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Do(New(Config{Policy: Trusted()}), req); fault.KindOf(err) != want {
			t.Errorf("caller's context: %s, want %s", fault.Detail(err), want)
		}
		cancel()
	}
}

func TestReadAllStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("chunked") {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 100))
	}))
	defer server.Close()
	client := New(Config{Policy: Trusted()})
	for _, query := range []string{"", "?chunked"} {
		for limit, ok := range map[int64]bool{99: false, 100: true, 1000: true} {
			resp, err := get(t, client, server.URL+query)
			if err != nil {
				t.Fatal(err)
			}
			body, err := ReadAll(resp, limit)
			if ok && (err != nil || len(body) != 100) {
				t.Errorf("limit %d: %d bytes, %v", limit, len(body), err)
			}
			if !ok && (fault.ReasonOf(err) != "response_too_large" || body != nil) {
				t.Errorf("limit %d: %d bytes, %v", limit, len(body), err)
			}
		}
	}
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	t.Parallel()
	if NewTransport(Config{}).Proxy != nil {
		t.Error("a proxy would be used")
	}
}

// An operator who writes such a name means this machine, whatever name servers say.
func TestNamesBelowLocalhostAreThisMachine(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for policy, want := range map[Policy]bool{{AllowLoopback: true}: true, {}: false} {
		dns := &answers{lists: [][]string{{"8.8.8.8"}}}
		g := newGuard(policy, nil)
		g.resolver = dns
		conn, err := g.DialContext(t.Context(), "tcp", "app.localhost:"+port)
		if err == nil {
			_ = conn.Close()
		}
		if (err == nil) != want || !want && !IsRefused(err) || dns.asked.Load() != 0 {
			t.Errorf("%+v: %v after %d lookups", policy, err, dns.asked.Load())
		}
	}
}

func TestOnlyTheGivenAuthoritiesAreTrusted(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	if _, err := get(t, New(Config{Policy: Trusted()}), server.URL); fault.ReasonOf(err) != "outbound_failed" {
		t.Errorf("an unknown authority: %v", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	pool, err := WithSystemRoots(secret.New(string(block)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := get(t, New(Config{Policy: Trusted(), RootCAs: pool}), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if _, err := WithSystemRoots(secret.New("no certificate")); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a bundle without certificates: %v", err)
	}
}

func TestSpansHoldNoQuery(t *testing.T) {
	t.Parallel()
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	defer server.Close()
	recorder := tracetest.NewSpanRecorder()
	client := New(Config{
		Policy: Trusted(), Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)),
		Propagator: propagation.TraceContext{},
	})
	resp, err := get(t, client, server.URL+"/path?code=secret-code")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAll(resp, 10); err != nil {
		t.Fatal(err)
	}
	spans := recorder.Ended()
	if len(spans) != 1 || got.Get("Traceparent") == "" {
		t.Fatalf("%d spans, traceparent %q", len(spans), got.Get("Traceparent"))
	}
	found := false
	for _, attr := range spans[0].Attributes() {
		if strings.Contains(attr.Value.String(), "secret-code") {
			t.Errorf("%s holds the query: %s", attr.Key, attr.Value.String())
		}
		found = found || attr.Key == "url.full" && strings.HasSuffix(attr.Value.AsString(), "/path")
	}
	if !found {
		t.Error("the span does not say where the call went")
	}
}

func TestParseDial(t *testing.T) {
	t.Parallel()
	from, to, err := ParseDial("LocalHost:8080=authserver:8080")
	if err != nil || from != "localhost:8080" || to != "authserver:8080" {
		t.Errorf("%q, %q, %v", from, to, err)
	}
	if _, _, err := ParseDial("[::1]:80=[::1]:81"); err != nil {
		t.Errorf("IPv6: %v", err)
	}
	for _, bad := range []string{"", "a:1", "a=b", "a:1=b", "a=b:1", ":1=b:1", "a:0=b:1", "a:x=b:1", "a:65536=b:1", "a:1=b:-1"} {
		if _, _, err := ParseDial(bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("ParseDial(%q) = %v", bad, err)
		}
	}
}

func TestHideTakesTheURLOffForeignErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("broken")
	err := hide(&url.Error{Op: "Get", URL: "https://idp.example/cb?code=secret", Err: cause})
	if strings.Contains(fault.Detail(err), "secret") || !strings.Contains(err.Error(), "idp.example") || !errors.Is(err, cause) {
		t.Errorf("error = %s", fault.Detail(err))
	}
}

func TestOnlyURLsOfThisMachineMayLeadToIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"http://localhost:1/x": true, "https://a.localhost": true, "http://LOCALHOST.": true, "http://127.0.0.9": true,
		"http://[::1]:80": true, "http://[::ffff:127.0.0.1]": true,
		"": false, "http://localhost.example": false, "http://10.0.0.1": false, "::": false,
	} {
		if got := Loopback(text); got != want {
			t.Errorf("Loopback(%q) = %t", text, got)
		}
	}
}
