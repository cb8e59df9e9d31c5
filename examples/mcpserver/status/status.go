package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/mcpserver"
)

const (
	incidentsURI = "status://incidents"
	probeTimeout = 2 * time.Second
)

// Config is what the server is made of.
type Config struct {
	// Probes are the URLs that answer 200 while a service is up, by its name.
	Probes     map[string]string
	Client     *http.Client
	Faults     *faults.Backend
	Propagator propagation.TextMapPropagator
	Log        *slog.Logger
}

type server struct {
	probes map[string]string
	client *http.Client

	mu        sync.Mutex
	incidents []Incident
}

// New returns the server's HTTP handler.
func New(cfg Config) http.Handler {
	s := &server{probes: cfg.Probes, client: cfg.Client}
	m := mcpserver.New("status", "Status of the demo", "Public: says which services answer. Never send credentials here.")
	readOnly := &mcp.ToolAnnotations{ReadOnlyHint: true}
	mcp.AddTool(m, &mcp.Tool{
		Name: "whoami", Title: "Who am I here?", Annotations: readOnly,
		Description: "Says that the call came without a credential; one with a credential is refused.",
	}, whoami)
	mcp.AddTool(m, &mcp.Tool{
		Name: "service_status", Title: "Which services are up?", Annotations: readOnly,
		Description: "Asks each service of the demo, or one of them, whether it is up.",
	}, s.status)
	mcp.AddTool(m, &mcp.Tool{
		Name: "count", Title: "Count slowly", Annotations: readOnly,
		Description: "Counts up with a progress notification for each number, for watching streams.",
	}, count)
	mcp.AddTool(m, &mcp.Tool{
		Name: "report_incident", Title: "Report an incident",
		Description: "Records that something is broken. Asks the person for what is missing.",
	}, s.report)
	m.AddResource(&mcp.Resource{
		URI: incidentsURI, Name: "incidents", Title: "Reported incidents", MIMEType: "application/json",
		Description: "The last reported incidents as JSON.",
	}, s.readIncidents)
	m.AddPrompt(&mcp.Prompt{
		Name: "incident_summary", Title: "Summarise incidents", Description: "Asks for a summary of the reported incidents.",
	}, summaryPrompt)
	inner := mcpserver.Handler(mcpserver.Config{
		Name: "status", Server: m, Faults: cfg.Faults, Propagator: cfg.Propagator, Log: cfg.Log,
	})
	return refuseCredentials(cfg.Log, inner)
}

// refuseCredentials refuses every request that carries something to sign in
// with. It names the header, never the value.
func refuseCredentials(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if isCredential(name) {
				log.WarnContext(r.Context(), "a credential came to a public server", "header", name)
				http.Error(w, "this server is public: a request must not carry "+name, http.StatusBadRequest)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func isCredential(header string) bool {
	h := strings.ToLower(header)
	switch h {
	case "authorization", "proxy-authorization", "cookie", "dpop":
		return true
	}
	for _, part := range []string{"token", "api-key", "apikey", "secret", "password", "credential", "auth-"} {
		if strings.Contains(h, part) {
			return true
		}
	}
	return false
}

// Caller is the result of whoami.
type Caller struct {
	Caller string `json:"caller"`
}

// whoami knows nobody: a request with a credential does not come this far.
func whoami(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, Caller, error) {
	return nil, Caller{"nobody: no credential came"}, nil
}

// statusInput is the input of service_status.
type statusInput struct {
	Service string `json:"service,omitempty" jsonschema:"the service to ask; all of them when left out"`
}

// Services is the result of service_status.
type Services struct {
	Services []Service `json:"services"`
}

// Service is how one service is.
type Service struct {
	Name string `json:"name"`
	// Status is up, or down.
	Status string `json:"status"`
	// Detail says why it counts as down.
	Detail string `json:"detail,omitempty"`
	// TookMS is how long it took to answer, in milliseconds.
	TookMS int64 `json:"took_ms"`
}

// status asks all services at once: one that hangs delays nobody else.
func (s *server) status(ctx context.Context, _ *mcp.CallToolRequest, in statusInput) (*mcp.CallToolResult, Services, error) {
	names := slices.Sorted(maps.Keys(s.probes))
	if in.Service != "" {
		if _, ok := s.probes[in.Service]; !ok {
			return nil, Services{}, fmt.Errorf("there is no service %q; there are %s", in.Service, strings.Join(names, ", "))
		}
		names = []string{in.Service}
	}
	out := Services{Services: make([]Service, len(names))}
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { out.Services[i] = s.probe(ctx, name) })
	}
	wg.Wait()
	return nil, out, nil
}

func (s *server) probe(ctx context.Context, name string) Service {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	start := time.Now()
	down := func(detail string) Service {
		return Service{Name: name, Status: "down", Detail: detail, TookMS: time.Since(start).Milliseconds()}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.probes[name], nil)
	if err != nil {
		return down("its address is wrong")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return down("no answer")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return down(resp.Status)
	}
	return Service{Name: name, Status: "up", TookMS: time.Since(start).Milliseconds()}
}

// countInput is the input of count.
type countInput struct {
	To         int `json:"to" jsonschema:"count from 1 up to this number, 1000 at most"`
	IntervalMS int `json:"interval_ms,omitempty" jsonschema:"wait so many milliseconds between two numbers, 10000 at most"`
}

// Counted is the result of count.
type Counted struct {
	Counted int `json:"counted"`
}

const (
	maxCount    = 1000
	maxInterval = 10 * time.Second
)

func count(ctx context.Context, req *mcp.CallToolRequest, in countInput) (*mcp.CallToolResult, Counted, error) {
	interval := time.Duration(in.IntervalMS) * time.Millisecond
	if in.To < 1 || in.To > maxCount || interval < 0 || interval > maxInterval {
		return nil, Counted{}, fmt.Errorf("to must be within 1 and %d, interval_ms within 0 and %d", maxCount, maxInterval.Milliseconds())
	}
	token := req.Params.GetProgressToken()
	for i := 1; i <= in.To; i++ {
		if token != nil {
			err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: token, Progress: float64(i), Total: float64(in.To), Message: fmt.Sprint(i),
			})
			if err != nil {
				return nil, Counted{}, fmt.Errorf("status: notify progress: %w", err)
			}
		}
		if i < in.To {
			if err := wait(ctx, interval); err != nil {
				return nil, Counted{}, err
			}
		}
	}
	return nil, Counted{in.To}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func summaryPrompt(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{
		Text: "Read the resource " + incidentsURI + " and summarise what is broken, the worst first.",
	}}}}, nil
}

func (s *server) readIncidents(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	s.mu.Lock()
	list := slices.Clone(s.incidents)
	s.mu.Unlock()
	if list == nil {
		list = []Incident{}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: "application/json", Text: string(text)}}}, nil
}
