package connections

import (
	"context"
	_ "embed"
	"net/http"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// openAPI is a copy of the generated document, because a module can embed only
// what lies inside it; a test compares the two.
//
//go:generate cp ../../../../docs/api/tokenbroker.swagger.json openapi.json
//go:embed openapi.json
var openAPI []byte

const openAPIPath = "/openapi.json"

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
		// What a caller mistypes is an error, in a body as in a query.
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true},
		}),
		runtime.WithMiddlewares(nameRoute, checkQuery(queryParameters(connectionService()))),
		// No form that is posted to a list passes for a GET.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithErrorHandler(writeGatewayError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
	)
	if err := brokerv1.RegisterConnectionServiceHandler(ctx, gateway, conn); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot serve the REST API")
	}
	return admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == openAPIPath && r.Method == http.MethodGet {
			telemetry.SetRoute(r.Context(), openAPIPath)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(openAPI) // the reader went away: nobody to tell
			return
		}
		gateway.ServeHTTP(w, r)
	})), nil
}

// nameRoute tells the telemetry around this handler which of the API's routes was
// taken: no http.ServeMux names it.
func nameRoute(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		telemetry.SetRoute(r.Context(), route(r.Context()))
		next(w, r, params)
	}
}

// route returns the path template of the .proto file that a request matched. A
// variable of one segment is {name} there and {name=*} in the mux.
func route(ctx context.Context) string {
	pattern, ok := runtime.HTTPPattern(ctx)
	if !ok {
		return ""
	}
	return strings.ReplaceAll(pattern.String(), "=*}", "}")
}

// admit lets in whom the client certificate names as one of Peers, and makes the
// call in their name. The gRPC server checks again.
func admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var names []string
		if r.TLS != nil {
			names = rpc.PeerNames(*r.TLS)
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case len(names) == 0:
			writeError(w, fault.New(fault.Unauthenticated, "a client certificate with a DNS name is required").
				WithReason("peer_unknown"))
			return
		case !slices.ContainsFunc(Peers(), func(p string) bool { return slices.Contains(names, p) }):
			writeError(w, fault.New(fault.Denied, "the client certificate does not name an operator: its DNS names must include one of "+strings.Join(Peers(), ", ")).
				WithReason("peer_denied"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(rpc.WithPeers(r.Context(), names)))
	})
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
