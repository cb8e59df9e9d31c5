package e2e

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// span is what the tests ask of a received span.
type span struct {
	Service, Name, Kind string
	ID, Parent          string
	Attributes          map[string]string
}

// spanCollector is an OTLP trace receiver that keeps spans by trace id.
type spanCollector struct {
	collector.UnimplementedTraceServiceServer
	address string
	server  *grpc.Server

	mu     sync.Mutex
	traces map[string][]span
}

func startCollector(ctx context.Context) (*spanCollector, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &spanCollector{address: l.Addr().String(), server: grpc.NewServer(), traces: map[string][]span{}}
	collector.RegisterTraceServiceServer(c.server, c)
	go func() { _ = c.server.Serve(l) }()
	return c, nil
}

// Export implements the OTLP trace service.
func (c *spanCollector) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		service := ""
		for _, kv := range resource.GetResource().GetAttributes() {
			if kv.GetKey() == "service.name" {
				service = kv.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				id := hex.EncodeToString(s.GetTraceId())
				c.traces[id] = append(c.traces[id], newSpan(service, s))
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func newSpan(service string, s *trace.Span) span {
	attributes := map[string]string{}
	for _, kv := range s.GetAttributes() {
		attributes[kv.GetKey()] = kv.GetValue().String()
	}
	return span{
		Service: service, Name: s.GetName(), Kind: s.GetKind().String(),
		ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		Attributes: attributes,
	}
}

// trace returns the spans received so far of one trace.
func (c *spanCollector) trace(id string) []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.traces[id])
}

// all returns every span received so far.
func (c *spanCollector) all() []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var spans []span
	for _, t := range c.traces {
		spans = append(spans, t...)
	}
	return spans
}
