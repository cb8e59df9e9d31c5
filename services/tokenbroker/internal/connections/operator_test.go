package connections_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	reflectiongrpc "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// problem is what an operator reads of an error, over gRPC or REST.
type problem struct {
	code    codes.Code
	message string
	reason  string
	fields  map[string]string
}

func problemOf(s *status.Status) problem {
	p := problem{code: s.Code(), message: s.Message()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			p.reason = d.GetReason()
		case *errdetails.BadRequest:
			p.fields = map[string]string{}
			for _, v := range d.GetFieldViolations() {
				p.fields[v.GetField()] = v.GetDescription()
			}
		}
	}
	return p
}

func (p problem) check(t *testing.T, want problem) {
	t.Helper()
	if p.code != want.code || p.message != want.message || p.reason != want.reason || len(p.fields) != len(want.fields) {
		t.Errorf("got %+v, want %+v", p, want)
		return
	}
	for field, text := range want.fields {
		if p.fields[field] != text {
			t.Errorf("field %s: %q, want %q", field, p.fields[field], text)
		}
	}
}

func invalid(field, text string) problem {
	return problem{codes.InvalidArgument, "the request is not valid", "request_invalid", map[string]string{field: text}}
}

// An operator who mistypes must be told what, in the same words over gRPC and REST,
// and never be shown an empty or a full list instead.
func TestOperatorsAreToldWhatIsWrongWithARequest(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	alice, hers := o.person("alice", 1)
	client, rest := o.client(), o.restClient("operator")
	noUser := problem{codes.NotFound, "there is no such user", reason.UserNotFound, nil}
	noConnection := problem{codes.NotFound, "there is no such connection", reason.ConnectionNotFound, nil}
	const (
		sizes = "must be greater than or equal to 0 and less than or equal to 200"
		token = "is not a next_page_token of this list"
	)
	page, err := client.ListUsers(t.Context(), &brokerv1.ListUsersRequest{PageSize: 1})
	must(t, err)
	if page.GetNextPageToken() != "" {
		t.Fatalf("a next page after all users: %v", page)
	}
	o.person("bob", 0)
	page, err = client.ListUsers(t.Context(), &brokerv1.ListUsersRequest{PageSize: 1})
	must(t, err)
	tests := []struct {
		name         string
		call         func(context.Context) error
		method, path string
		body         string
		want         problem
	}{
		{"connections of nobody", func(ctx context.Context) error {
			_, err := client.ListConnections(ctx, &brokerv1.ListConnectionsRequest{UserId: "usr_nobody"})
			return err
		}, "GET", "/v1/users/usr_nobody/connections", "", noUser},
		{"connections of a missing user", func(ctx context.Context) error {
			_, err := client.ListConnections(ctx, &brokerv1.ListConnectionsRequest{})
			return err
		}, "GET", "/v1/users//connections", "", invalid("user_id", "must be at least 1 characters")},
		{"sessions of nobody", func(ctx context.Context) error {
			_, err := client.ListSessions(ctx, &brokerv1.ListSessionsRequest{UserId: "usr_nobody"})
			return err
		}, "GET", "/v1/users/usr_nobody/sessions", "", noUser},
		{"a connection that is not there", func(ctx context.Context) error {
			_, err := client.GetConnection(ctx, &brokerv1.GetConnectionRequest{ConnectionId: "con_none"})
			return err
		}, "GET", "/v1/connections/con_none", "", noConnection},
		{"no connection", func(ctx context.Context) error {
			_, err := client.GetConnection(ctx, &brokerv1.GetConnectionRequest{})
			return err
		}, "GET", "/v1/connections/", "", invalid("connection_id", "must be at least 1 characters")},
		{"an endless id", func(ctx context.Context) error {
			_, err := client.GetConnection(ctx, &brokerv1.GetConnectionRequest{ConnectionId: strings.Repeat("c", 500)})
			return err
		}, "GET", "/v1/connections/" + strings.Repeat("c", 500), "", invalid("connection_id", "must be at most 128 characters")},
		{"disconnect what is not there", func(ctx context.Context) error {
			_, err := client.Disconnect(ctx, &brokerv1.DisconnectRequest{ConnectionId: "con_none"})
			return err
		}, "POST", "/v1/connections/con_none:disconnect", "{}", noConnection},
		{"a page size below zero", func(ctx context.Context) error {
			_, err := client.ListUsers(ctx, &brokerv1.ListUsersRequest{PageSize: -1})
			return err
		}, "GET", "/v1/users?page_size=-1", "", invalid("page_size", sizes)},
		{"a page size without measure", func(ctx context.Context) error {
			_, err := client.ListAuditRecords(ctx, &brokerv1.ListAuditRecordsRequest{PageSize: 201})
			return err
		}, "GET", "/v1/audit-records?pageSize=201", "", invalid("page_size", sizes)},
		{"a page token of nobody", func(ctx context.Context) error {
			_, err := client.ListUsers(ctx, &brokerv1.ListUsersRequest{PageToken: "nonsense"})
			return err
		}, "GET", "/v1/users?page_token=nonsense", "", invalid("page_token", token)},
		{"a page token of another list", func(ctx context.Context) error {
			_, err := client.ListAuditRecords(ctx, &brokerv1.ListAuditRecordsRequest{PageToken: page.GetNextPageToken()})
			return err
		}, "GET", "/v1/audit-records?pageToken=" + page.GetNextPageToken(), "", invalid("page_token", token)},
		{"a misspelled filter", nil, "GET", "/v1/audit-records?userid=" + alice, "", invalid("userid", "is no parameter of this path")},
		{
			"a parameter for a path without any", nil, "POST", "/v1/connections/" + hers[0] + ":disconnect?dryRun=true", "{}",
			invalid("dryRun", "is no parameter of this path"),
		},
		{
			"a misspelled field", nil, "POST", "/v1/connections/" + hers[0] + ":disconnect", `{"dry_run": true}`,
			invalid("body", `(line 1:2): unknown field "dry_run"`),
		},
		{
			"a body that is no JSON", nil, "POST", "/v1/connections/" + hers[0] + ":disconnect", "force=yes",
			invalid("body", "invalid character 'o' in literal false (expecting 'a')"),
		},
		{
			"a number that is none", nil, "GET", "/v1/users?pageSize=many", "",
			invalid("query", `parsing field "page_size": strconv.ParseInt: parsing "many": invalid syntax`),
		},
		{
			"an unknown path", nil, "GET", "/v2/users", "",
			problem{codes.NotFound, "there is no such path: see /openapi.json", "", nil},
		},
		{
			"an unknown verb", nil, "POST", "/v1/connections/" + hers[0] + ":revoke", "{}",
			problem{codes.Unimplemented, "this path does not take that method: see /openapi.json", "", nil},
		},
		{
			"a list that is posted to", nil, "POST", "/v1/users", "page_size=1",
			problem{codes.Unimplemented, "this path does not take that method: see /openapi.json", "", nil},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.call != nil {
				problemOf(status.Convert(tt.call(t.Context()))).check(t, tt.want)
			}
			code, body := o.call(rest, tt.method, tt.path, tt.body)
			var s statuspb.Status
			if err := protojson.Unmarshal([]byte(body), &s); err != nil {
				t.Fatalf("HTTP %d, not a google.rpc.Status: %s", code, body)
			}
			problemOf(status.FromProto(&s)).check(t, tt.want)
			if want := httpStatus(tt.want.code); code != want {
				t.Errorf("HTTP status %d, want %d", code, want)
			}
			if !strings.HasPrefix(body, `{"code":`) || strings.Contains(body, "\u00a0") {
				t.Errorf("hard to read: %s", body)
			}
		})
	}
	t.Cleanup(func() {
		c, err := o.client().GetConnection(context.Background(), &brokerv1.GetConnectionRequest{ConnectionId: hers[0]})
		if err != nil || c.GetConnection().GetState() != brokerv1.ConnectionState_CONNECTION_STATE_ACTIVE {
			t.Errorf("a refused request ended a connection: %v, %v", c, err)
		}
	})
}

func httpStatus(c codes.Code) int {
	switch c {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Unimplemented:
		return http.StatusMethodNotAllowed
	}
	return http.StatusBadRequest
}

// A person who has disconnected everything still exists.
func TestAUserWithoutConnectionsHasAnEmptyList(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	user, _ := o.person("bob", 0)
	list, err := o.client().ListConnections(t.Context(), &brokerv1.ListConnectionsRequest{UserId: user})
	if err != nil || len(list.GetConnections()) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	rest := o.restClient("operator")
	for path, want := range map[string]string{"connections": `{"connections":[],"nextPageToken":""}`, "sessions": `{"sessions":[],"nextPageToken":""}`} {
		if code, body := o.call(rest, "GET", "/v1/users/"+user+"/"+path, ""); code != http.StatusOK || compact(t, body) != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func compact(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	must(t, json.Compact(&b, []byte(body)))
	return b.String()
}

func TestDisconnectingOneLeavesTheOthers(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	user, ids := o.person("alice", 3)
	rest := o.restClient("operator")
	for _, body := range []string{"{}", ""} { // a second time, and without a body, it changes nothing
		if code, answer := o.call(rest, "POST", "/v1/connections/"+ids[1]+":disconnect", body); code != http.StatusOK || answer != "{}" {
			t.Fatalf("%d %s", code, answer)
		}
	}
	_, err := o.client().Disconnect(t.Context(), &brokerv1.DisconnectRequest{ConnectionId: ids[2]})
	must(t, err)
	list, err := o.client().ListConnections(t.Context(), &brokerv1.ListConnectionsRequest{UserId: user})
	must(t, err)
	const active, gone = brokerv1.ConnectionState_CONNECTION_STATE_ACTIVE, brokerv1.ConnectionState_CONNECTION_STATE_DISCONNECTED
	var states []brokerv1.ConnectionState
	for _, c := range list.GetConnections() {
		states = append(states, c.GetState())
	}
	if !slices.Equal(states, []brokerv1.ConnectionState{active, gone, gone}) {
		t.Errorf("states %v", states)
	}
	var queued int
	must(t, o.pool.QueryRow(t.Context(), `SELECT count(*) FROM tokenbroker.revocations WHERE user_id = $1 AND connection_id <> ''`, user).Scan(&queued))
	if queued != 2 {
		t.Errorf("%d revocations at the provider", queued)
	}
	records, err := o.client().ListAuditRecords(t.Context(), &brokerv1.ListAuditRecordsRequest{UserId: user})
	must(t, err)
	if len(records.GetRecords()) != 2 {
		t.Errorf("records %v", records)
	}
	for _, r := range records.GetRecords() {
		if r.GetPeer() != "operator" || r.GetAction() != "connection.disconnected" {
			t.Errorf("record %v", r)
		}
	}
}

func TestPagesOfUsersAreWhole(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	for _, name := range []string{"ann", "ben", "cat", "dan", "eve"} {
		o.person(name, 0)
	}
	var seen []string
	token := ""
	for range 9 {
		page, err := o.client().ListUsers(t.Context(), &brokerv1.ListUsersRequest{PageSize: 2, PageToken: token})
		must(t, err)
		for _, u := range page.GetUsers() {
			seen = append(seen, u.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(seen, []string{"eve", "dan", "cat", "ben", "ann"}) {
		t.Errorf("saw %v", seen)
	}
}

func TestOnlyOperatorsMayLook(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	for _, path := range []string{"/v1/users", "/openapi.json", "/"} {
		code, body := o.call(o.restClient("gateway"), "GET", path, "")
		if code != http.StatusForbidden || !strings.Contains(body, "must include one of operator, authserver") || !strings.Contains(body, "peer_denied") {
			t.Errorf("%s as gateway: %d %s", path, code, body)
		}
	}
	cfg := o.ca.TLS("operator").ClientConfig("tokenbroker")
	cfg.Certificates = nil
	resp, err := o.httpClient(cfg).Get(o.rest.URL + "/v1/users")
	if err == nil {
		_ = resp.Body.Close()
		t.Errorf("without a certificate: HTTP %d", resp.StatusCode)
	}
	_, err = brokerv1.NewConnectionServiceClient(o.dial("gateway")).ListUsers(t.Context(), &brokerv1.ListUsersRequest{})
	problemOf(status.Convert(err)).check(t, problem{
		codes.PermissionDenied, `peer "gateway" may not call broker.v1.ConnectionService`, "peer_denied", nil,
	})
}

// What grpcurl does before its first call.
func TestOperatorsFindTheServiceByReflection(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	ask := func(names ...string) (*reflectiongrpc.ServerReflectionResponse, error) {
		stream, err := reflectiongrpc.NewServerReflectionClient(o.dial(names...)).ServerReflectionInfo(t.Context())
		must(t, err)
		err = stream.Send(&reflectiongrpc.ServerReflectionRequest{
			MessageRequest: &reflectiongrpc.ServerReflectionRequest_ListServices{},
		})
		if !errors.Is(err, io.EOF) { // refused already: Recv says why
			must(t, err)
		}
		return stream.Recv()
	}
	answer, err := ask("operator")
	must(t, err)
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	if !slices.Contains(names, "broker.v1.ConnectionService") || !slices.Contains(names, "grpc.health.v1.Health") {
		t.Errorf("services %v", names)
	}
	if _, err := ask("authserver"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("reflection for the authorization server: %v", err)
	}
}

// One label for all requests tells nobody which of them is slow; one for each
// path would have no bound.
func TestRequestsAreMeasuredByTheirRoute(t *testing.T) {
	t.Parallel()
	o := newOperations(t)
	user, ids := o.person("alice", 1)
	rest := o.restClient("operator")
	for _, path := range []string{"/v1/users", "/v1/users/" + user + "/connections", "/v1/connections/" + ids[0], "/openapi.json", "/v1/nothing"} {
		o.call(rest, "GET", path, "")
	}
	o.call(rest, "POST", "/v1/connections/"+ids[0]+":disconnect", "{}")
	want := []string{
		"/openapi.json", "/v1/connections/{connection_id}", "/v1/connections/{connection_id}:disconnect", "/v1/users",
		"/v1/users/{user_id}/connections", "unmatched",
	}
	if got := o.routes(); !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
}

func (o *operations) routes() (list []string) {
	o.t.Helper()
	var all metricdata.ResourceMetrics
	must(o.t, o.metrics.Collect(o.t.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			durations, ok := m.Data.(metricdata.Histogram[float64])
			if !ok || m.Name != "http.server.request.duration" {
				continue
			}
			for i := range durations.DataPoints {
				route, _ := durations.DataPoints[i].Attributes.Value("http.route")
				list = append(list, route.AsString())
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
