package credential_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestEachBackendGetsWhatItsStrategySays(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	s := b.logIn(true)
	token := b.token(s, nil)
	tests := []struct {
		backend, value, origin, provider string
		connection                       bool
	}{
		{"repos", "Authorization: Bearer " + planted + "-hub-at-1", "https://repos.example", "octohub", true},
		{"payroll", "Authorization: Bearer " + planted + "-exchanged-1-for-payroll", "https://payroll.example", "octohub", true},
		{"hours", "Authorization: Bearer " + planted + "-exchanged-2-for-hours", "https://hours.example", "corp", true},
		{"ledger", "X-Ledger-Token: " + planted + "-exchanged-3-for-ledger", "https://ledger.example", "", false},
		{"keyed", "X-Api-Key: " + planted + "-KEYED_API_KEY", "https://keyed.example:8443", "", false},
		{"tokened", "Authorization: Bearer " + planted + "-TOKENED_TOKEN", "https://tokened.example", "", false},
		{"open", "", "https://open.example", "", false},
	}
	for _, tt := range tests {
		out := b.mustGet(token, tt.backend)
		if value(out) != tt.value || out.GetOrigin() != tt.origin || out.GetProvider() != tt.provider ||
			(out.GetConnectionId() != "") != tt.connection || out.GetSessionId() != s.id || out.GetCredentialVersion() == "" {
			t.Errorf("%s: %v", tt.backend, out)
		}
		if (out.GetExpiresAt() == nil) != (tt.backend == "open") {
			t.Errorf("%s: expires at %v", tt.backend, out.GetExpiresAt())
		}
		if again := b.mustGet(token, tt.backend); value(again) != tt.value || again.GetCredentialVersion() != out.GetCredentialVersion() {
			t.Errorf("%s, asked again: %v", tt.backend, again)
		}
	}

	// The subjects: octohub's token, corp's id token, and one of our own that is
	// not the caller's bearer.
	seen := b.sts.seen()
	if len(seen) != 3 || seen[0] != planted+"-hub-at-1" || strings.Count(seen[1], ".") != 2 || seen[2] != planted+"-minted-for-"+s.user {
		t.Errorf("subjects %q", seen)
	}
	if slices.Contains(seen, token) {
		t.Error("the bearer that opens our gateway was sent to a token service")
	}
	if m := b.mint.asked; len(m) != 1 || m[0].GetSessionId() != s.id || m[0].GetAudience() != b.sts.url+"/token" {
		t.Errorf("asked to mint %v", m)
	}
	// Who acts is told where that is configured, by a token that is nobody's bearer.
	if m := b.mint.acted; len(m) != 1 || m[0].GetSessionId() != s.id || m[0].GetUserId() != s.user || m[0].GetAudience() != b.sts.url+"/token" {
		t.Errorf("asked to mint actor tokens %v", m)
	}
	if !slices.Equal(b.sts.actors, []string{"", planted + "-actor-of-" + s.id, ""}) {
		t.Errorf("actors %q", b.sts.actors)
	}
}

func TestEveryCredentialLeavesARecord(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	s := b.logIn(false)
	token := b.token(s, nil)
	issued := b.mustGet(token, "tokened").GetCredentialVersion()
	_, err := b.get(token, "repos")
	wantReason(t, err, reason.ConnectionRequired, "octohub")
	_, err = b.get("not a token", "open")
	wantReason(t, err, reason.TokenInvalid, "")
	_, err = b.reject("a stolen one, perhaps", "keyed", issued) // nobody tries tokens without a trace
	wantReason(t, err, reason.TokenInvalid, "")

	records, err := b.store.ListAudit(t.Context(), store.AuditFilter{Limit: 10})
	must(t, err)
	want := map[string]audit.Record{
		"open":    {Action: audit.CredentialRefused, Outcome: reason.TokenInvalid, Strategy: "unauthenticated"},
		"repos":   {Action: audit.CredentialRefused, Outcome: reason.ConnectionRequired, Strategy: "upstreamInject", Provider: "octohub", SessionID: s.id, UserID: s.user, ClientID: s.client},
		"keyed":   {Action: audit.CredentialRefused, Outcome: reason.TokenInvalid, Strategy: "headerInjection"},
		"tokened": {Action: audit.CredentialIssued, Outcome: audit.Success, Strategy: "bearerToken", SessionID: s.id, UserID: s.user, ClientID: s.client},
	}
	for _, r := range records {
		w, ok := want[r.Backend]
		if !ok {
			continue
		}
		delete(want, r.Backend)
		w.Backend, w.ID, w.Time, w.TraceID, w.Peer = r.Backend, r.ID, r.Time, r.TraceID, r.Peer
		if r != w {
			t.Errorf("record %+v, want %+v", r, w)
		}
	}
	if len(want) > 0 {
		t.Errorf("no record for %v", slices.Collect(maps.Keys(want)))
	}
}

type brokenAudit struct{}

func (brokenAudit) Record(context.Context, audit.Record) error {
	return fault.New(fault.Unavailable, "no disk")
}

func TestWhatCannotBeRecordedIsNotIssued(t *testing.T) {
	t.Parallel()
	b := start(t, options{audit: brokenAudit{}})
	if out, err := b.get(b.token(b.logIn(false), nil), "tokened"); err == nil || out != nil {
		t.Errorf("issued %v without a record", out)
	}
}

// A stolen gateway can use only sessions that are live in its hands.
func TestTheGatewayIsNotBelieved(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	s, other := b.logIn(true), b.logIn(true)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	claims := func(change map[string]any) map[string]any {
		c := map[string]any{
			"iss": issuerURL, "sub": s.user, "aud": []string{audience}, "client_id": s.client, "tsid": s.id,
			"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		}
		maps.Copy(c, change)
		return c
	}
	if _, err := b.get(signWith(t, b.keys.p384, "at+jwt", claims(nil)), "keyed"); err != nil {
		t.Errorf("the authserver may sign with another kind of key: %s", fault.Detail(err))
	}
	bad := map[string]string{
		"garbage":                     "garbage",
		"signed by a stranger":        signWith(t, stranger, "at+jwt", claims(nil)),
		"an id token of ours":         b.keys.sign(t, "JWT", claims(nil)),
		"of another issuer":           b.token(s, map[string]any{"iss": "http://localhost:9999"}),
		"for another resource":        b.token(s, map[string]any{"aud": "https://api.example.com"}),
		"for another backend":         b.token(s, map[string]any{"aud": []string{audience + "/payroll"}}),
		"for a backend's name as end": b.token(s, map[string]any{"aud": []string{audience + "/x/repos"}}),
		"expired":                     b.token(s, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}),
		"of another client":           b.token(s, map[string]any{"client_id": "client-2"}),
		"of another user":             b.token(s, map[string]any{"sub": "usr_somebody"}),
		"without a session":           b.token(s, map[string]any{"tsid": ""}),
		"without a client":            b.token(s, map[string]any{"client_id": ""}),
		"minted for a token service":  b.keys.sign(t, "JWT", claims(map[string]any{"aud": b.sts.url + "/token", "tsid": ""})),
	}
	for name, token := range bad {
		_, err := b.get(token, "repos")
		if f, ok := fault.As(err); !ok || f.Reason != reason.TokenInvalid || f.Kind != fault.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.reject(token, "repos", "c.x.1"); fault.ReasonOf(err) != reason.TokenInvalid {
			t.Errorf("%s, rejected: %v", name, err)
		}
	}
	_, err = b.get(b.token(s, map[string]any{"tsid": "ses_unknown"}), "repos")
	wantReason(t, err, reason.SessionEnded, "")
	_, err = b.get("", "repos")
	wantReason(t, err, reason.UserRequired, "")
	_, err = b.get(b.token(s, nil), "unknown")
	wantReason(t, err, reason.BackendUnknown, "")
	_, err = b.GetCredential(t.Context(), &brokerv1.GetCredentialRequest{
		AccessToken: b.token(s, nil), Backend: "repos", ConfigDigest: strings.Repeat("0", 64),
	})
	wantReason(t, err, reason.ConfigUnknown, "")

	// What must work: a token for this backend alone, and one that just expired.
	b.mustGet(b.token(s, map[string]any{"aud": audience + "/repos"}), "repos")
	b.mustGet(b.token(s, map[string]any{"exp": time.Now().Add(-10 * time.Second).Unix()}), "repos")

	// Another's credential version has no effect on this one's connection.
	version := b.mustGet(b.token(other, nil), "repos").GetCredentialVersion()
	before := b.hub.count()
	forged := strings.Replace(version, "c.", "c.con_somebody", 1)
	if renewed, err := b.reject(b.token(s, nil), "repos", forged); err != nil || !renewed || b.hub.count() != before {
		t.Errorf("a forged version: renewed %v, %v, %d renewals", renewed, err, b.hub.count()-before)
	}
	for _, bad := range []string{"x", "c", "c.a", "c.a.b", "c.a.1.2", "x.a.1.0", "x.a.1.-1.id", "x.a.1.0.", "c.a.99999999999999999999", "c.a.-1", "z.1", ".."} {
		if _, err := b.reject(b.token(s, nil), "repos", bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("version %q: %v", bad, err)
		}
	}
}

// A skipped provider costs its own backends only.
func TestASkippedProviderIsAskedFor(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	token := b.token(b.logIn(false), nil)
	for _, backend := range []string{"repos", "payroll"} {
		_, err := b.get(token, backend)
		wantReason(t, err, reason.ConnectionRequired, "octohub")
	}
	for _, backend := range []string{"hours", "ledger", "keyed", "open"} {
		b.mustGet(token, backend)
	}
}

// An ended session opens nothing, within a second, also where it was remembered;
// and no answer from before hides that from a gateway.
func TestAnEndedSessionOpensNothing(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	s := b.logIn(true)
	token := b.token(s, nil)
	backends := []string{"repos", "payroll", "ledger", "keyed", "open"}
	for _, backend := range backends {
		b.mustGet(token, backend)
	}
	_, err := b.login.EndSession(t.Context(), &brokerv1.EndSessionRequest{SessionId: s.id, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_SIGNED_OUT})
	must(t, err)
	ended := time.Now()
	_, head, err := b.store.EndedSessions(t.Context(), time.Hour)
	must(t, err)
	for _, backend := range backends {
		eventually(t, backend+" is refused", func() bool {
			out, err := b.get(token, backend)
			if err == nil && out.GetObservedPosition() >= head {
				t.Fatalf("%s was opened at position %d, after the end at %d", backend, out.GetObservedPosition(), head)
			}
			return fault.ReasonOf(err) == reason.SessionEnded
		})
	}
	if took := time.Since(ended); took > 5*time.Second { // a second, and room for a busy machine
		t.Errorf("took %v", took)
	}
}

func TestTheAuthserverMayBeAway(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	token := b.token(b.logIn(false), nil)
	b.mint.err = fault.New(fault.Unavailable, "")
	_, err := b.get(token, "ledger")
	wantReason(t, err, reason.UpstreamUnavailable, "")
	b.mint.err = fault.New(fault.Precondition, "").WithReason(reason.SessionEnded)
	_, err = b.get(token, "ledger")
	wantReason(t, err, reason.SessionEnded, "")
	b.mint.err = nil
	b.mustGet(token, "ledger")
}

// With an issuer of somebody else's there are no sessions and no connections;
// the caller's own token is what is exchanged, and nobody else's.
func TestExternalIssuer(t *testing.T) {
	t.Parallel()
	b := start(t, options{resources: externalResources})
	end := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	sign := func(sub string) string {
		return b.keys.sign(t, "JWT", map[string]any{
			"iss": b.keys.issuer, "sub": sub, "aud": audience, "exp": end.Unix(), "iat": time.Now().Unix(), "azp": "agent",
		})
	}
	alice, bob := sign("alice"), sign("bob")
	forAlice, forBob := b.mustGet(alice, "ledger"), b.mustGet(bob, "ledger")
	if value(forAlice) == value(forBob) {
		t.Fatal("alice and bob share a token")
	}
	if again := b.mustGet(alice, "ledger"); value(again) != value(forAlice) {
		t.Error("exchanged again")
	}
	if seen := b.sts.seen(); !slices.Equal(seen, []string{alice, bob}) {
		t.Errorf("%d subjects, not the callers' tokens", len(seen))
	}
	if got := forAlice.GetExpiresAt().AsTime(); got.After(end) {
		t.Errorf("outlives the caller's token: %v", got)
	}
	if forAlice.GetSessionId() != "" || forAlice.GetConnectionId() != "" {
		t.Errorf("a session or connection: %v", forAlice)
	}
	if out := b.mustGet(alice, "keyed"); value(out) != "X-Api-Key: "+planted+"-KEYED_API_KEY" || out.GetExpiresAt() != nil {
		t.Errorf("keyed: %v", out)
	}
	_, err := b.get("", "keyed")
	wantReason(t, err, reason.UserRequired, "")
	_, err = b.get(strings.Replace(alice, ".", ".A", 1), "keyed")
	wantReason(t, err, reason.TokenInvalid, "")
}

func TestAnonymousModeIsForStaticStrategies(t *testing.T) {
	t.Parallel()
	b := start(t, options{resources: anonymousResources})
	if out := b.mustGet("", "tokened"); value(out) != "Authorization: Bearer "+planted+"-TOKENED_TOKEN" {
		t.Errorf("%v", out)
	}
	b.mustGet("whatever somebody sent", "open")

	// It is this broker's configuration that says so, not the gateway's.
	strict := start(t, options{})
	_, err := strict.GetCredential(t.Context(), &brokerv1.GetCredentialRequest{Backend: "tokened", ConfigDigest: b.source.Current().Digest})
	wantReason(t, err, reason.ConfigUnknown, "")
	_, err = strict.get("", "tokened")
	wantReason(t, err, reason.UserRequired, "")
}

// A gateway that has not swapped yet is answered as it was configured, but never
// with tokens of what a provider's name stands for by now.
func TestConfigurationsSwap(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	token := b.token(b.logIn(true), nil)
	old := b.source.Current().Digest
	ask := func(digest, backend string) (*brokerv1.GetCredentialResponse, error) {
		return b.GetCredential(t.Context(), &brokerv1.GetCredentialRequest{AccessToken: token, Backend: backend, ConfigDigest: digest})
	}
	must(t, b.source.Apply(t.Context(), b.load(strings.ReplaceAll(authServerResources, "https://repos.example", "https://repos2.example"))))
	for digest, origin := range map[string]string{old: "https://repos.example", b.source.Current().Digest: "https://repos2.example"} {
		out, err := ask(digest, "repos")
		must(t, err)
		if out.GetOrigin() != origin {
			t.Errorf("origin %s, want %s", out.GetOrigin(), origin)
		}
	}
	must(t, b.source.Apply(t.Context(), b.load(strings.ReplaceAll(authServerResources, "$HUB/token", "$HUB/token2"))))
	_, err := ask(old, "repos")
	wantReason(t, err, reason.ConfigUnknown, "")
	_, err = ask(b.source.Current().Digest, "repos")
	wantReason(t, err, reason.ConnectionRequired, "octohub") // the connection is of another realm
	if _, err := ask(old, "hours"); err != nil {
		t.Errorf("a provider that did not change: %v", err)
	}
}

// A missing secret shows at start, with its name.
func TestMissingSecretsRefuseTheSet(t *testing.T) {
	t.Parallel()
	err := prepareWithoutSecrets(t)
	for _, want := range []string{"backend keyed", "KEYED_API_KEY", "backend ledger", "STS_CLIENT_SECRET"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestNoSecretInLogsOrErrors(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	s := b.logIn(true)
	token := b.token(s, nil)
	var errs []error
	collect := func() {
		for _, backend := range []string{"repos", "payroll", "hours", "ledger", "keyed", "tokened", "open"} {
			out, err := b.get(token, backend)
			errs = append(errs, err)
			if err == nil {
				_, err = b.reject(token, backend, out.GetCredentialVersion())
				errs = append(errs, err)
				if strings.Contains(out.GetCredentialVersion(), planted) {
					t.Errorf("%s: the version shows a secret", backend)
				}
			}
		}
		_, err := b.get(token+"x", "repos")
		errs = append(errs, err)
	}
	collect()
	b.sts.set(func(s *sts) { s.refuse = func(subject string) string { return subject } })
	collect()
	b.hub.set(func(h *hub) { h.dead = true })
	collect()
	b.hub.set(func(h *hub) { h.dead, h.down = false, true })
	collect()
	check := func(what, text string) {
		for _, p := range []string{planted, token, token[:40]} {
			if strings.Contains(text, p) {
				t.Errorf("%s shows a secret: %s", what, text)
			}
		}
	}
	for _, err := range errs {
		for e := err; e != nil; e = errors.Unwrap(e) {
			check("an error", fmt.Sprintf("%v %+v %s %s", e, e, fault.Detail(e), fault.Attr(e)))
		}
	}
	check("the log", b.log.String())
	if !strings.Contains(b.log.String(), "audit") {
		t.Error("nothing was logged: the test looks at the wrong logger")
	}
}
