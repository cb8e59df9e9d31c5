package vault

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// person has logged in: a session, and at each provider a connection and the family
// of tokens behind it.
type person struct {
	subject, session, user string
	token                  string // opens the gateway
	connection             map[*provider]string
	family                 map[*provider]string
}

// logIn runs a chain at one broker, whose tokens live so long.
func (h *house) logIn(ctx context.Context, b *broker, subject string, lifetime time.Duration) (*person, error) {
	begun, err := b.login.BeginSession(ctx, &brokerv1.BeginSessionRequest{ClientId: "agent", ClientName: "Agent"})
	if err != nil {
		return nil, err
	}
	p := &person{subject: subject, session: begun.GetSessionId(), connection: map[*provider]string{}, family: map[*provider]string{}}
	for _, leg := range []struct {
		name string
		at   *provider
	}{{"strict", h.strict}, {"grace", h.grace}} {
		nonce := rand.Text()
		code, family := leg.at.authorize(subject, nonce, lifetime)
		p.family[leg.at] = family
		redeemed, err := b.login.RedeemCode(ctx, &brokerv1.RedeemCodeRequest{
			SessionId: p.session, Provider: leg.name, Code: code, Nonce: nonce,
			CodeVerifier: rand.Text() + rand.Text(), RedirectUri: ourIssuer + "/oauth/callback/" + leg.name,
		})
		if err != nil {
			return nil, err
		}
		p.user = redeemed.GetUserId()
	}
	active, err := b.login.ActivateSession(ctx, &brokerv1.ActivateSessionRequest{SessionId: p.session, ClientId: "agent"})
	if err != nil {
		return nil, err
	}
	for _, link := range active.GetLinks() {
		p.connection[h.providerNamed(link.GetProvider())] = link.GetConnectionId()
	}
	p.token = h.accessToken(p)
	return p, nil
}

func (h *house) providerNamed(name string) *provider {
	if name == "strict" {
		return h.strict
	}
	return h.grace
}

// mustLogIn is logIn of somebody new.
func (h *house) mustLogIn(lifetime time.Duration) *person {
	h.t.Helper()
	var p *person
	eventually(h.t, 10*time.Second, func() string { // our connection to a broker that was started again follows it
		var err error
		p, err = h.logIn(h.t.Context(), h.brokers[0], strings.ToLower(rand.Text()), lifetime)
		if fault.KindOf(err) == fault.Unavailable {
			return err.Error()
		}
		must(h.t, err)
		return ""
	})
	return p
}

// accessToken signs what the authserver would give to the client of a session.
func (h *house) accessToken(p *person) string {
	h.t.Helper()
	return sign(h.t, h.signer, map[string]any{
		"iss": ourIssuer, "sub": p.user, "aud": []string{audience}, "client_id": "agent", "jti": rand.Text(), "tsid": p.session,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
}

// handedOut is what a call ended with.
type handedOut struct {
	person  *person
	backend string
	token   string // the credential, without its scheme
	version string
	err     error
	asked   int   // how many requests it took
	refused error // what a broker answered before, rather than a connection that broke
}

// get asks one broker once.
func (h *house) get(ctx context.Context, b *broker, p *person, backend string, conn int) handedOut {
	out := handedOut{person: p, backend: backend, asked: 1}
	resp, err := b.credentials[conn%len(b.credentials)].GetCredential(ctx, &brokerv1.GetCredentialRequest{
		AccessToken: p.token, Backend: backend, ConfigDigest: h.digest,
	})
	if err != nil {
		out.err = err
		return out
	}
	if len(resp.GetHeaders()) == 1 {
		out.token = strings.TrimPrefix(resp.GetHeaders()[0].GetValue(), "Bearer ")
	}
	out.version = resp.GetCredentialVersion()
	return out
}

// insist asks the brokers in turn, as a gateway does, until one of them has an answer
// that more asking would not change.
func (h *house) insist(ctx context.Context, first int, p *person, backend string) handedOut {
	var before error
	for n := 0; ; n++ {
		out := h.get(ctx, h.brokers[(first+n)%len(h.brokers)], p, backend, first/len(h.brokers))
		out.asked, out.refused = n+1, before
		if out.err == nil || !transient(out.err) || ctx.Err() != nil {
			return out
		}
		if fault.ReasonOf(out.err) != "" {
			before = out.err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// transient says of an error that the same call may succeed later.
func transient(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Canceled:
		return true
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
