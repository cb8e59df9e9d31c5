package app

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/credentials"
)

// generations serve each request with the newest configuration, from its first
// byte to its last: a swap ends no stream. A generation is kept until the last
// request that began in it is over: a client's stream ends with its access token,
// a call that its backend still answers only with the session, or with the client.
// Safe for concurrent use.
type generations struct {
	broker brokerv1.CredentialServiceClient
	// make builds the gateway of a set.
	make func(*config.Set) (*Gateway, error)

	mu      sync.RWMutex
	current *generation
	started chan *generation // to Run
}

// generation is a gateway with the requests that it serves.
type generation struct {
	*Gateway
	requests sync.WaitGroup
	over     chan struct{} // closed when it is not needed any more
}

func newGenerations(cfg Config) (*generations, error) {
	g := &generations{
		broker:  brokerv1.NewCredentialServiceClient(cfg.Broker),
		started: make(chan *generation),
		make: func(set *config.Set) (*Gateway, error) {
			next := cfg
			next.Set = set
			return New(next)
		},
	}
	first, err := g.make(cfg.Set)
	if err != nil {
		return nil, err
	}
	g.current = &generation{Gateway: first, over: make(chan struct{})}
	return g, nil
}

// ServeHTTP implements http.Handler.
func (g *generations) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.RLock()
	current := g.current
	current.requests.Add(1) // under the lock: swap waits for those that it has seen
	g.mu.RUnlock()
	defer current.requests.Done()
	current.Handler.ServeHTTP(w, r)
}

// Run runs what the generations need until ctx ends.
func (g *generations) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	run := func(one *generation) func() error {
		return func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-one.over:
					cancel()
				case <-ctx.Done():
				}
			}()
			return one.Credentials.Run(ctx)
		}
	}
	group.Go(run(g.current))
	for {
		select {
		case next := <-g.started:
			group.Go(run(next))
		case <-ctx.Done():
			return group.Wait()
		}
	}
}

const (
	// brokerAnswers is how many answers in a row must know a set: calls go round
	// the broker's replicas, which do not all reload at once.
	brokerAnswers = 3
	// watchPatience is how long a new generation may take until it hears of sessions.
	watchPatience = 10 * time.Second
)

// swap takes a set into use. The last one stays while the broker does not have the
// set yet, or cannot use it: it would refuse every call. Errors say why.
func (g *generations) swap(ctx context.Context, set *config.Set) error {
	for range brokerAnswers {
		if err := g.known(ctx, set.Digest()); err != nil {
			return err
		}
	}
	made, err := g.make(set)
	if err != nil {
		return err
	}
	next := &generation{Gateway: made, over: make(chan struct{})}
	select {
	case g.started <- next:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := fresh(ctx, made.Credentials); err != nil {
		close(next.over)
		return err
	}
	g.mu.Lock()
	last := g.current
	g.current = next
	g.mu.Unlock()
	go func() { // until the last request is over, or the process is
		last.requests.Wait()
		close(last.over)
	}()
	return nil
}

// known asks whether the broker has a set. No set has a backend of this reserved
// name, so a broker that has it says that the backend is unknown, and opens nothing.
func (g *generations) known(ctx context.Context, digest string) error {
	ctx, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	_, err := g.broker.ReportRejected(ctx, &brokerv1.ReportRejectedRequest{Backend: "chatelaine", ConfigDigest: digest, CredentialVersion: "n"})
	switch fault.ReasonOf(err) {
	case credentials.ReasonBackendUnknown:
		return nil
	case credentials.ReasonConfigUnknown:
		return fault.New(fault.Precondition, "the token broker does not use these resources yet; when that lasts, see its log").
			WithReason(credentials.ReasonConfigUnknown)
	}
	return fault.Wrap(fault.Unavailable, err, "the token broker cannot be asked whether it uses these resources")
}

// fresh waits until a manager hears of sessions, so that no call has to wait for
// a confirmation after the swap.
func fresh(ctx context.Context, m *credentials.Manager) error {
	ctx, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	for !m.Fresh() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the token broker's watch of sessions does not answer")
		}
	}
	return nil
}
