package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	"chatelaine.dev/services/authserver/internal/app"
)

func TestTheMetadataIsFoundWhereverClientsLookAndSaysWhatWorks(t *testing.T) {
	t.Parallel()
	for base, paths := range map[string][]string{
		"http://localhost:8080": {"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
		"https://auth.example/tenant": {
			"/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server",
			"/.well-known/openid-configuration/tenant", "/tenant/.well-known/openid-configuration", "/.well-known/openid-configuration",
		},
	} {
		s := newSystemWith(t, options{issuer: base})
		for _, path := range paths {
			p := s.browser().get(path)
			wantStatus(t, p, http.StatusOK)
			var m map[string]any
			s.must(json.Unmarshal([]byte(p.body), &m))
			for name, want := range map[string]any{
				"issuer": base, "authorization_endpoint": base + "/oauth/authorize", "token_endpoint": base + "/oauth/token",
				"registration_endpoint": base + "/oauth/register", "jwks_uri": base + "/oauth/jwks", "authorization_response_iss_parameter_supported": true,
				"revocation_endpoint": base + "/oauth/revoke", "introspection_endpoint": base + "/oauth/introspect",
			} {
				if m[name] != want {
					t.Errorf("%s%s: %s is %v, want %v", base, path, name, m[name], want)
				}
			}
			for name, want := range map[string]string{
				"code_challenge_methods_supported": "S256", "grant_types_supported": "authorization_code refresh_token",
				"response_types_supported": "code", "scopes_supported": "tools admin offline_access",
				"token_endpoint_auth_methods_supported": "none client_secret_basic client_secret_post",
			} {
				var got []string
				for _, v := range m[name].([]any) {
					got = append(got, v.(string))
				}
				if strings.Join(got, " ") != want {
					t.Errorf("%s: %s is %v", path, name, got)
				}
			}
			if _, has := m["subject_types_supported"]; has != strings.Contains(path, "openid") {
				t.Errorf("%s: OpenID members: %v", path, has)
			}
			if p.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: no CORS", path)
			}
		}
	}
}

func TestAnIssuerWithAPathWorksThroughAWholeLogin(t *testing.T) {
	t.Parallel()
	s := newSystemWith(t, options{issuer: "http://localhost:8080/tenant"})
	c, b := s.client(), s.browser()
	leg := c.approve(b)
	for range 2 {
		p := b.get(s.broker.SignIn(t, leg, "alice"))
		wantStatus(t, p, http.StatusSeeOther)
		leg = p.location
	}
	if !strings.HasPrefix(leg, redirect+"?code=") || !strings.Contains(leg, "iss=http%3A%2F%2Flocalhost%3A8080%2Ftenant") {
		t.Errorf("the client was answered with %s", leg)
	}
}

func TestScriptsMayCallWhatIsForThemAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for path, want := range map[string]string{
		"/oauth/token": "*", "/oauth/register": "*", "/oauth/revoke": "*", "/oauth/jwks": "*", "/.well-known/openid-configuration": "*",
		"/oauth/authorize": "", "/oauth/consent": "",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, s.local(path), nil)
		s.must(err)
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Method", "POST")
		p := s.browser().do(r)
		if got := p.header.Get("Access-Control-Allow-Origin"); got != want || (want != "") != (p.status == http.StatusNoContent) {
			t.Errorf("%s: %d, %q", path, p.status, got)
		}
	}
}

func TestRegistrationsAreCheckedOverHTTP(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for name, tt := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"a bad redirect URI": {`{"redirect_uris":["http://client.example/cb"]}`, http.StatusBadRequest, "invalid_redirect_uri"},
		"no JSON":            {`nope`, http.StatusBadRequest, "invalid_client_metadata"},
		"oversize":           {`{"client_name":"` + strings.Repeat("x", 64<<10) + `"}`, http.StatusRequestEntityTooLarge, "invalid_client_metadata"},
	} {
		status, answer := s.register(tt.body)
		if status != tt.status || answer["error"] != tt.code || answer["error_description"] == "" {
			t.Errorf("%s: %d %v", name, status, answer)
		}
	}
	if n := s.count(`SELECT count(*) FROM authserver.clients`); n != 0 {
		t.Errorf("%d clients stored", n)
	}
}

func TestRegistrationsOfOneAddressAreLimited(t *testing.T) {
	t.Parallel()
	s := newSystemWith(t, options{flags: func(f *app.Flags) { f.RegistrationsPerMinute, f.RegistrationBurst = 1, 2 }})
	var got []int
	for range 3 {
		status, _ := s.register(`{"redirect_uris":["http://localhost/cb"]}`)
		got = append(got, status)
	}
	if !slices.Equal(got, []int{201, 201, 429}) {
		t.Errorf("statuses %v", got)
	}
}

func TestAllowancesCountForThePersonBehindATrustedProxy(t *testing.T) {
	t.Parallel()
	s := newSystemWith(t, options{flags: func(f *app.Flags) {
		f.RegistrationsPerMinute, f.RegistrationBurst = 1, 1
		f.TrustedProxy = []string{"127.0.0.0/8", "::1/128"}
	}})
	ask := func(method, path, address string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, s.local(path), strings.NewReader(`{"redirect_uris":["http://localhost/cb"]}`))
		s.must(err)
		r.Header.Set("X-Forwarded-For", address)
		return s.browser().do(r).status
	}
	for i, want := range []int{201, 429} {
		if got := ask(http.MethodPost, "/oauth/register", "192.0.2.1"); got != want {
			t.Errorf("registration %d: %d, want %d", i, got, want)
		}
	}
	if got := ask(http.MethodPost, "/oauth/register", "192.0.2.2"); got != http.StatusCreated {
		t.Errorf("another person behind the proxy: %d", got)
	}
	for path, method := range map[string]string{"/oauth/authorize": http.MethodGet, "/oauth/consent": http.MethodPost, "/oauth/token": http.MethodPost} {
		limited := false
		for range 5000 {
			if limited = ask(method, path, "192.0.2.1") == http.StatusTooManyRequests; limited {
				break
			}
		}
		if got := ask(method, path, "192.0.2.2"); !limited || got == http.StatusTooManyRequests {
			t.Errorf("%s: limited %v, another person %d", path, limited, got)
		}
	}
}

// subjects serves SubjectTokenService and returns a client that is called name.
func (s *system) subjects(name string) authserverv1.SubjectTokenServiceClient {
	s.t.Helper()
	ca := rpctest.NewCA(s.t)
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("authserver"), Telemetry: telemetry.Discard(),
		Peers: map[string][]string{authserverv1.SubjectTokenService_ServiceDesc.ServiceName: {"tokenbroker"}},
	})
	s.must(err)
	authserverv1.RegisterSubjectTokenServiceServer(server, s.server.Subject)
	return authserverv1.NewSubjectTokenServiceClient(ca.Dial(rpctest.Serve(s.t, server), "authserver", nil, name))
}

func TestASubjectTokenSaysWhoThePersonIsAndOpensNothingOfOurs(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.connected()
	session := s.broker.Sessions("active")[0]
	request := func(session, user, audience string) *authserverv1.MintSubjectTokenRequest {
		return &authserverv1.MintSubjectTokenRequest{SessionId: session, UserId: user, Audience: audience}
	}
	broker := s.subjects("tokenbroker")
	const sts = "https://sts.example/token"
	got, err := broker.MintSubjectToken(t.Context(), request(session, "user-alice", sts))
	s.must(err)
	typ, claims := s.verified(got.GetToken())
	if typ != "JWT" || claims["iss"] != issuer || claims["sub"] != "user-alice" || claims["jti"] == "" {
		t.Errorf("typ %s, claims %v", typ, claims)
	}
	if aud, ok := claims["aud"].([]any); !ok || len(aud) != 1 || aud[0] != sts {
		t.Errorf("aud %v", claims["aud"])
	}
	for _, name := range []string{"tsid", "scope", "client_id"} {
		if _, has := claims[name]; has {
			t.Errorf("it has %s", name)
		}
	}
	if life := claims["exp"].(float64) - claims["iat"].(float64); life != 120 || time.Until(got.GetExpiresAt().AsTime()) > 2*time.Minute {
		t.Errorf("lives for %v s", life)
	}
	s.notLogged(got.GetToken())

	actor := func(session, user, audience string) (*authserverv1.MintActorTokenResponse, error) {
		return broker.MintActorToken(t.Context(), &authserverv1.MintActorTokenRequest{SessionId: session, UserId: user, Audience: audience})
	}
	acts, err := actor(session, "user-alice", sts)
	s.must(err)
	var client string
	s.must(s.pool.QueryRow(t.Context(), `SELECT client_id FROM authserver.grants WHERE session_id = $1`, session).Scan(&client))
	typ, claims = s.verified(acts.GetToken())
	if typ != "JWT" || claims["iss"] != issuer || claims["sub"] != client || client == "" || fmt.Sprint(claims["aud"]) != fmt.Sprint([]string{sts}) ||
		claims["tsid"] != nil || claims["scope"] != nil || claims["exp"].(float64)-claims["iat"].(float64) != 120 {
		t.Errorf("the actor token: typ %s, claims %v", typ, claims)
	}
	s.notLogged(acts.GetToken())

	for name, tt := range map[string]struct {
		in   *authserverv1.MintSubjectTokenRequest
		kind fault.Kind
	}{
		"another user":      {request(session, "user-bob", sts), fault.Precondition},
		"another session":   {request("session-x", "user-alice", sts), fault.Precondition},
		"a zero byte":       {request("session\x00", "user-alice", sts), fault.Precondition},
		"no audience":       {request(session, "user-alice", ""), fault.Invalid},
		"no URL":            {request(session, "user-alice", "sts"), fault.Invalid},
		"our own issuer":    {request(session, "user-alice", issuer), fault.Invalid},
		"our own endpoint":  {request(session, "user-alice", "HTTP://LocalHost:8080/oauth/token"), fault.Invalid},
		"our own resource":  {request(session, "user-alice", audience), fault.Invalid},
		"a backend of ours": {request(session, "user-alice", audience+"/repos"), fault.Invalid},
	} {
		_, err := broker.MintSubjectToken(t.Context(), tt.in)
		if err == nil || fault.KindOf(err) != tt.kind || (tt.kind == fault.Precondition) != (fault.ReasonOf(err) == "SESSION_ENDED") {
			t.Errorf("%s: %v", name, err)
		}
		_, err = actor(tt.in.GetSessionId(), tt.in.GetUserId(), tt.in.GetAudience())
		if err == nil || fault.KindOf(err) != tt.kind || (tt.kind == fault.Precondition) != (fault.ReasonOf(err) == "SESSION_ENDED") {
			t.Errorf("actor token for %s: %v", name, err)
		}
	}
	if _, err := s.subjects("gateway").MintSubjectToken(t.Context(), request(session, "user-alice", sts), grpc.WaitForReady(true)); fault.KindOf(err) != fault.Denied {
		t.Errorf("the gateway: %v", err)
	}
	s.broker.EndNow(session)
	s.exec(`UPDATE authserver.grants SET status = 'ended', ended_at = now()`)
	if _, err := broker.MintSubjectToken(t.Context(), request(session, "user-alice", sts)); fault.ReasonOf(err) != "SESSION_ENDED" {
		t.Errorf("an ended session: %v", err)
	}
	if _, err := actor(session, "user-alice", sts); fault.ReasonOf(err) != "SESSION_ENDED" {
		t.Errorf("an actor of an ended session: %v", err)
	}
}
