package connections

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"chatelaine.dev/internal/rpc"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// openAPI is a copy of the generated document, because a module can embed only
// what lies inside it; a test compares the two.
//
//go:generate cp ../../../../docs/api/tokenbroker.swagger.json openapi.json
//go:embed openapi.json
var openAPI []byte

// maxBody bounds a REST request's body, in bytes.
const maxBody = 64 << 10

// Peers may call ConnectionService, by gRPC and by REST.
func Peers() []string { return []string{"operator", "authserver"} }

// NewHandler returns the REST face of ConnectionService. conn is the gRPC
// server's in-process connection. The listener must verify client certificates;
// a request without one is refused here too.
func NewHandler(ctx context.Context, conn *grpc.ClientConn, propagator propagation.TextMapPropagator) (http.Handler, error) {
	gateway := runtime.NewServeMux(
		// No header of a REST caller becomes gRPC metadata; the trace goes along.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(ctx context.Context, _ *http.Request) metadata.MD {
			md := metadata.MD{}
			propagator.Inject(ctx, carrier(md))
			return md
		}),
	)
	if err := brokerv1.RegisterConnectionServiceHandler(ctx, gateway, conn); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openAPI) // the reader went away: nobody to tell
	})
	mux.Handle("/v1/", gateway)
	return admit(mux), nil
}

// admit lets in whom the client certificate names as one of Peers, and makes the
// call in their name. The gRPC server checks again.
func admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var names []string
		if r.TLS != nil {
			names = rpc.PeerNames(*r.TLS)
		}
		switch {
		case len(names) == 0:
			refuse(w, http.StatusUnauthorized, codes.Unauthenticated, "a client certificate with a DNS name is required")
			return
		case !slices.ContainsFunc(Peers(), func(p string) bool { return slices.Contains(names, p) }):
			refuse(w, http.StatusForbidden, codes.PermissionDenied, "the client certificate does not name an operator")
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(rpc.WithPeers(r.Context(), names)))
	})
}

// refuse answers as grpc-gateway does: a google.rpc.Status as JSON.
func refuse(w http.ResponseWriter, status int, code codes.Code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "message": message, "details": []any{}})
}

// carrier is gRPC metadata as OpenTelemetry wants it.
type carrier metadata.MD

func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
