package passthrough_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// The backend of both benchmarks: it reads the call and answers with 1 KiB.
func benchBackend() http.Handler {
	body := []byte(`{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"` + strings.Repeat("x", 950) + `"}]}}`)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}

var benchCall = []byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"query":"` +
	strings.Repeat("lorem ipsum ", 40) + `"}}}`)

func benchmark(b *testing.B, target, token string) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest(http.MethodPost, target, bytes.NewReader(benchCall))
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
}

// BenchmarkPassThrough is a call on the warm path: token and credential are
// known. Compare it with BenchmarkReverseProxy of the same run.
func BenchmarkPassThrough(b *testing.B) {
	g := newGateway(b, options{}, map[string]http.Handler{"repos": benchBackend()})
	benchmark(b, g.url+"/mcp/repos", g.token("alice"))
	if n := g.broker.Gets("repos"); n > 2 {
		b.Errorf("the broker was asked %d times", n)
	}
}

// BenchmarkReverseProxy is the standard library's proxy, which checks nothing.
func BenchmarkReverseProxy(b *testing.B) {
	backend := httptest.NewServer(benchBackend())
	b.Cleanup(backend.Close)
	target, err := url.Parse(backend.URL)
	if err != nil {
		b.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	})
	b.Cleanup(proxy.Close)
	benchmark(b, proxy.URL+"/mcp/repos", "none")
}

// BenchmarkDirect is the call without anything in between.
func BenchmarkDirect(b *testing.B) {
	backend := httptest.NewServer(benchBackend())
	b.Cleanup(backend.Close)
	benchmark(b, backend.URL+"/mcp/repos", "none")
}
