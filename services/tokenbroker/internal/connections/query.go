package connections

import (
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// parameters are the names that a query may have, by path template.
type parameters map[string]map[string]bool

func connectionService() protoreflect.ServiceDescriptor {
	return brokerv1.File_broker_v1_connection_proto.Services().ByName("ConnectionService")
}

// queryParameters reads from a service's google.api.http options what the gateway
// takes from a query: of a GET, the fields that are not in its path.
func queryParameters(service protoreflect.ServiceDescriptor) parameters {
	known := parameters{}
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		rule, ok := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule.GetGet() == "" {
			continue
		}
		names := map[string]bool{}
		fields := method.Input().Fields()
		for j := range fields.Len() {
			field := fields.Get(j)
			if !strings.Contains(rule.GetGet(), "{"+string(field.Name())+"}") {
				names[string(field.Name())], names[field.JSONName()] = true, true
			}
		}
		known[rule.GetGet()] = names
	}
	return known
}

// checkQuery refuses parameters that the gateway would ignore. A filter that is
// misspelled must not show everything as if it were what was asked for.
func checkQuery(known parameters) runtime.Middleware {
	return func(next runtime.HandlerFunc) runtime.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
			for name := range r.URL.Query() {
				if !known[route(r.Context())][name] {
					writeError(w, invalidRequest(name, "is no parameter of this path"))
					return
				}
			}
			next(w, r, params)
		}
	}
}
