package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"chatelaine.dev/internal/fault"
)

const (
	dialTimeout = time.Second
	// maxBody bounds what is read of a request, in bytes: more than any service here takes.
	maxBody = 16 << 20
	// largeBody is from where on a replica is asked before the body is sent, in
	// bytes: one that refuses it may close the connection, and its answer be lost.
	largeBody = 64 << 10
	// resolveEvery is how old DNS answers may be.
	resolveEvery = time.Second
	// leaveOut is how long a replica that could not be reached gets no requests.
	leaveOut = 5 * time.Second
)

// Resolver is net.Resolver's method that a Front needs.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// Config makes a Front.
type Config struct {
	// To is the HOST:PORT whose every address is a replica.
	To string
	// Resolver finds them; nil means DNS.
	Resolver Resolver
	Logger   *slog.Logger
}

// New returns the reverse proxy. It also answers GET /healthz, for itself.
func New(cfg Config) (http.Handler, error) {
	host, port, err := net.SplitHostPort(cfg.To)
	if err != nil || host == "" {
		return nil, fault.Newf(fault.Invalid, "%q is not HOST:PORT", cfg.To)
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", cfg.To
			r.Out.Host = r.In.Host // the name that the client typed
			r.SetXForwarded()
		},
		Transport: &balancer{
			replicas: &replicas{host: host, port: port, resolver: cfg.Resolver, failed: map[string]time.Time{}},
			// A connection for each request: a kept one may lead to a replica that has just gone.
			next: &http.Transport{
				DialContext:       (&net.Dialer{Timeout: dialTimeout}).DialContext,
				DisableKeepAlives: true, DisableCompression: true, ExpectContinueTimeout: time.Second,
			},
		},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				http.Error(w, "the request is too large", http.StatusRequestEntityTooLarge)
				return
			}
			if r.Context().Err() == nil { // the client is still there
				cfg.Logger.WarnContext(r.Context(), "no answer", slog.String("path", r.URL.Path), slog.Any("error", err))
			}
			http.Error(w, "no replica answered", http.StatusBadGateway)
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.MaxBytesHandler(proxy, maxBody))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	return mux, nil
}

// balancer sends each request to the next replica that can be connected to.
type balancer struct {
	replicas *replicas
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper. The body is read before it is sent: an
// attempt that fails must leave it for the next, and a server closes the body of
// a request as soon as it begins to answer, under the hands of a transport that
// still looks for its end.
func (b *balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		defer req.Body.Close()
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	addresses, err := b.replicas.inTurn(req.Context())
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, address := range addresses {
		attempt := req.Clone(req.Context())
		attempt.URL.Host = address
		attempt.Body = http.NoBody
		if len(body) > 0 {
			attempt.Body = io.NopCloser(bytes.NewReader(body))
		}
		attempt.ContentLength, attempt.TransferEncoding = int64(len(body)), nil
		if len(body) >= largeBody {
			attempt.Header.Set("Expect", "100-continue") // RFC 9110, section 10.1.1
		}
		resp, err := b.next.RoundTrip(attempt)
		if err == nil {
			return resp, nil
		}
		failures = append(failures, err)
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" || req.Context().Err() != nil {
			break
		}
		b.replicas.fail(address)
	}
	return nil, errors.Join(failures...)
}
