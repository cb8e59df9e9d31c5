package e2e

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// exchange is one request with its answer, as a proxy saw them.
type exchange struct {
	Method, URL      string
	RequestHeader    http.Header
	RequestBody      []byte
	ResponseStatus   int
	ResponseHeader   http.Header
	ResponseBody     []byte
	responseComplete bool
}

// recorder is a reverse proxy that keeps what passes. It changes nothing: the
// Host header stays that of the caller.
type recorder struct {
	address string
	server  *http.Server

	mu        sync.Mutex
	exchanges []*exchange
}

// startRecorder records what goes to the server at target, HOST:PORT.
func startRecorder(ctx context.Context, target string) (*recorder, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &recorder{address: l.Addr().String()}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: target})
			p.Out.Host = p.In.Host
		},
		FlushInterval:  -1,
		ModifyResponse: r.response,
		Transport:      &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
	}
	r.server = &http.Server{Handler: r.request(proxy)} //nolint:gosec // a test's own loopback server
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

// RoundTrip makes a recorder without a server the transport of a client: it keeps
// what that client sends and gets, its cookies too.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	e := &exchange{Method: req.Method, URL: req.URL.String(), RequestHeader: req.Header.Clone(), RequestBody: body}
	r.mu.Lock()
	r.exchanges = append(r.exchanges, e)
	r.mu.Unlock()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	e.ResponseStatus, e.ResponseHeader = resp.StatusCode, resp.Header.Clone()
	r.mu.Unlock()
	resp.Body = &teeBody{body: resp.Body, recorder: r, exchange: e}
	return resp, nil
}

type exchangeKey struct{}

func (r *recorder) request(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, "cannot read the request", http.StatusBadGateway)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.ContentLength = int64(len(body))
		e := &exchange{Method: req.Method, URL: req.URL.String(), RequestHeader: req.Header.Clone(), RequestBody: body}
		r.mu.Lock()
		r.exchanges = append(r.exchanges, e)
		r.mu.Unlock()
		next.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), exchangeKey{}, e)))
	})
}

func (r *recorder) response(resp *http.Response) error {
	e := resp.Request.Context().Value(exchangeKey{}).(*exchange)
	r.mu.Lock()
	e.ResponseStatus, e.ResponseHeader = resp.StatusCode, resp.Header.Clone()
	r.mu.Unlock()
	resp.Body = &teeBody{body: resp.Body, recorder: r, exchange: e}
	return nil
}

// teeBody keeps a copy of what is read from a response.
type teeBody struct {
	body     io.ReadCloser
	recorder *recorder
	exchange *exchange
}

func (t *teeBody) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	t.recorder.mu.Lock()
	t.exchange.ResponseBody = append(t.exchange.ResponseBody, p[:n]...)
	t.exchange.responseComplete = err == io.EOF
	t.recorder.mu.Unlock()
	return n, err
}

func (t *teeBody) Close() error { return t.body.Close() }

// seen returns copies of all exchanges so far whose URL contains part.
func (r *recorder) seen(part string) []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []exchange
	for _, e := range r.exchanges {
		if strings.Contains(e.URL, part) {
			c := *e
			c.ResponseBody = bytes.Clone(e.ResponseBody)
			found = append(found, c)
		}
	}
	return found
}
