package process

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"chatelaine.dev/internal/fault"
)

// Limits of an HTTPServer whose own field is zero.
const (
	DefaultReadHeaderTimeout = 10 * time.Second
	DefaultReadTimeout       = 30 * time.Second
	DefaultStallTimeout      = time.Minute
	DefaultIdleTimeout       = 2 * time.Minute
	DefaultDrainTimeout      = 15 * time.Second
	DefaultMaxHeaderBytes    = 64 << 10
)

// HTTPServer is an http.Server as a Task.
type HTTPServer struct {
	// Listener, when set, is served; else Address is listened on.
	Listener net.Listener
	// Address is HOST:PORT or :PORT.
	Address string
	// Flag is the command-line flag that set Address, for the error of a start.
	Flag    string
	Handler http.Handler
	// TLS, when set, makes the server speak TLS with it (HTTP/2 too).
	TLS *tls.Config

	// ReadTimeout bounds reading a whole request; zero means the default,
	// negative means none (for handlers that read long uploads; they set their
	// own deadlines with http.ResponseController). Headers are always bounded.
	ReadTimeout time.Duration
	// WriteTimeout bounds writing a response; zero means none, because streams
	// last for minutes.
	WriteTimeout time.Duration
	// StallTimeout bounds each write to a connection, of up to 1 MiB; zero means the
	// default. A client that does not read for so long is gone. (With HTTP/2, one
	// that reads and gives no room in its windows is not.)
	StallTimeout time.Duration
	// DrainTimeout bounds the wait for running requests after the stop. Then
	// their connections are closed.
	DrainTimeout time.Duration
	// DrainDelay is how long new requests are still served after the stop, so
	// that load balancers see the readiness fail first. OnDrain runs before.
	DrainDelay time.Duration
	// OnDrain, when set, is called once when the stop begins: fail readiness,
	// end long streams. It must not block.
	OnDrain func()
	// Logger gets the server's own errors (bad handshakes …); nil drops them.
	Logger *slog.Logger
}

// Listen opens the listener now, so that a taken port is a start-up error and
// not a task's. It sets and returns s.Listener.
func (s *HTTPServer) Listen(ctx context.Context) (net.Listener, error) {
	if s.Listener != nil {
		return s.Listener, nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return nil, s.listenFailed(err)
	}
	s.Listener = ln
	return ln, nil
}

// listenFailed says what to do about it.
func (s *HTTPServer) listenFailed(err error) error {
	kind, advice := fault.Unavailable, "choose another address"
	_, _, invalid := net.SplitHostPort(s.Address)
	switch {
	case invalid != nil:
		kind, advice = fault.Invalid, "it must be HOST:PORT or :PORT"
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "stop what listens there (ss -ltnp shows it), or choose another address"
	case errors.Is(err, syscall.EACCES):
		advice = "ports below 1024 are for privileged users; choose another one"
	}
	if s.Flag != "" {
		advice += " with --" + s.Flag
	}
	return fault.Wrap(kind, err, "cannot listen on "+s.Address+"; "+advice).WithReason("listen_failed")
}

// Run serves until ctx ends, then drains. It is a Task. A drain that does not
// finish in DrainTimeout is no error: the remaining connections are closed.
func (s HTTPServer) Run(ctx context.Context) error {
	ln, err := s.Listen(ctx)
	if err != nil {
		return err
	}
	ln = stallListener{ln, orDefault(s.StallTimeout, DefaultStallTimeout)}
	server := s.server(ctx)
	served := make(chan error, 1)
	go func() {
		if s.TLS != nil {
			served <- server.ServeTLS(ln, "", "")
			return
		}
		served <- server.Serve(ln)
	}()

	select {
	case err := <-served:
		return s.ended(ln, err)
	case <-ctx.Done():
	}
	if s.OnDrain != nil {
		s.OnDrain()
	}
	if s.DrainDelay > 0 {
		select {
		case <-time.After(s.DrainDelay):
		case err := <-served:
			return s.ended(ln, err)
		}
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), orDefault(s.DrainTimeout, DefaultDrainTimeout))
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			return fault.Wrap(fault.Internal, err, "HTTP server did not shut down")
		}
		if s.Logger != nil {
			s.Logger.WarnContext(ctx, "closing connections that did not drain", slog.String("address", ln.Addr().String()))
		}
		return server.Close()
	}
	return nil
}

// ended is the error of a server that ends without being told to.
func (s HTTPServer) ended(ln net.Listener, err error) error {
	return fault.Wrap(fault.Internal, err, "HTTP server on "+ln.Addr().String()+" ended")
}

func (s HTTPServer) server(ctx context.Context) *http.Server {
	server := &http.Server{
		Handler:           s.Handler,
		TLSConfig:         s.TLS,
		ReadHeaderTimeout: DefaultReadHeaderTimeout,
		ReadTimeout:       max(0, orDefault(s.ReadTimeout, DefaultReadTimeout)),
		WriteTimeout:      s.WriteTimeout,
		IdleTimeout:       DefaultIdleTimeout,
		MaxHeaderBytes:    DefaultMaxHeaderBytes,
		// Requests outlive the stop: they get the drain to finish.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	handler := slog.DiscardHandler
	if s.Logger != nil {
		handler = s.Logger.Handler()
	}
	server.ErrorLog = slog.NewLogLogger(handler, slog.LevelDebug)
	return server
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
