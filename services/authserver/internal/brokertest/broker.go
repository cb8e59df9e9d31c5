package brokertest

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// SessionLife is how long an active session lasts.
const SessionLife = 30 * 24 * time.Hour

// Broker is the broker and the providers behind it.
type Broker struct {
	brokerv1.UnimplementedLoginServiceServer

	mu        sync.Mutex
	providers []*brokerv1.Provider
	sessions  map[string]*session
	codes     map[string]upstreamCode
	accounts  map[string]string // user/provider → subject that was connected before
	down      error
	redeem    error
	calls     map[string]int
	life      time.Duration
	nameAs    string
	during    map[string]func()
}

type session struct {
	clientID, userID string
	state            string // pending, active, ended
	locked           bool
	reason           brokerv1.SessionEndReason
	links            map[string]brokerv1.SessionLinkState
	legs             map[string]string // by provider, the id of the leg that is staged
	skips            map[string]brokerv1.SkipReason
	failures         []*brokerv1.FailedLeg // as the broker records them
	ends             time.Time             // set by the first activation, for good
}

type upstreamCode struct {
	provider, challenge, redirectURI, nonce string
	identity                                *brokerv1.Identity
}

// New returns a broker with these providers, the primary one first.
func New(providers ...*brokerv1.Provider) *Broker {
	return &Broker{
		providers: providers, sessions: map[string]*session{}, codes: map[string]upstreamCode{},
		accounts: map[string]string{}, calls: map[string]int{}, life: SessionLife, during: map[string]func(){},
	}
}

// Serve runs the broker and returns a client of it, as the authorization server.
func (b *Broker) Serve(t testing.TB) brokerv1.LoginServiceClient {
	t.Helper()
	ca := rpctest.NewCA(t)
	return brokerv1.NewLoginServiceClient(ca.Dial(b.Listen(t, ca), "tokenbroker", nil, "authserver"))
}

// Listen runs the broker under an authority and returns its address.
func (b *Broker) Listen(t testing.TB, ca *rpctest.CA) (address string) {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(),
		Peers: map[string][]string{brokerv1.LoginService_ServiceDesc.ServiceName: {"authserver"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	brokerv1.RegisterLoginServiceServer(server, b)
	return rpctest.Serve(t, server)
}

// Change edits a provider.
func (b *Broker) Change(name string, edit func(p *brokerv1.Provider)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	edit(b.provider(name))
}

// Fail makes every call fail with err until it is nil.
func (b *Broker) Fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = err
}

// FailRedemption makes RedeemCode fail with err until it is nil.
func (b *Broker) FailRedemption(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.redeem = err
}

// During is what happens elsewhere during the next call of a method.
func (b *Broker) During(method string, happens func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.during[method] = happens
}

// Connected says that the user of a primary subject was connected to another
// account of a provider before.
func (b *Broker) Connected(primarySubject, provider, subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts["user-"+primarySubject+"/"+provider] = subject
}

// SignIn plays a person who signs in at a provider and agrees: it returns where
// the provider sends the browser.
func (b *Broker) SignIn(t testing.TB, authorizationURL, subject string) string {
	t.Helper()
	u, err := url.Parse(authorizationURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.providers, func(p *brokerv1.Provider) bool { return p.GetRedirectUri() == q.Get("redirect_uri") })
	if i < 0 || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("client_id") != b.providers[i].GetClientId() {
		t.Fatalf("the browser was sent to %s", authorizationURL)
	}
	code := rand.Text()
	b.codes[code] = upstreamCode{
		provider: b.providers[i].GetName(), challenge: q.Get("code_challenge"), redirectURI: q.Get("redirect_uri"), nonce: q.Get("nonce"),
		identity: &brokerv1.Identity{Subject: subject, Name: subject},
	}
	return q.Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
}

// Session returns what became of a session: its state ("" when there is none)
// and why it ended.
func (b *Broker) Session(id string) (state string, reason brokerv1.SessionEndReason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[id]; s != nil {
		return s.state, s.reason
	}
	return "", 0
}

// Sessions returns the ids of all sessions in a state.
func (b *Broker) Sessions(state string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id, s := range b.sessions {
		if s.state == state {
			ids = append(ids, id)
		}
	}
	return ids
}

// Redeemed makes every pending session's leg at a provider another one, as a code does
// that is redeemed after the chain has ended.
func (b *Broker) Redeemed(provider string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if s.state == "pending" {
			s.stage(provider)
		}
	}
}

func (s *session) stage(provider string) {
	if s.legs == nil {
		s.legs = map[string]string{}
	}
	s.legs[provider] = rand.Text()
}

// Linked reports whether a session has an account at a provider.
func (b *Broker) Linked(id, provider string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[id].links[provider] == brokerv1.SessionLinkState_SESSION_LINK_STATE_LINKED
}

// Skips returns why a session's providers were skipped.
func (b *Broker) Skips(id string) map[string]brokerv1.SkipReason {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[id].skips
}

// Failures returns the legs of a session that are on record as failed: those whose
// code was refused, and the one that ended the login.
func (b *Broker) Failures(id string) []*brokerv1.FailedLeg {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.sessions[id].failures)
}

// Calls returns how often a method was called.
func (b *Broker) Calls(method string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[method]
}

// EndNow ends a session on the broker's side, as an operator does.
func (b *Broker) EndNow(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[id].state, b.sessions[id].reason = "ended", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR
}

// Lock locks an active session, or unlocks it, as an operator does.
func (b *Broker) Lock(id string, locked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[id].locked = locked
}

// EndsIn makes sessions end that long after they are activated, however often they are
// touched.
func (b *Broker) EndsIn(life time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.life = life
}

// Age makes that much of every session's time go by.
func (b *Broker) Age(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		s.ends = s.ends.Add(-by)
	}
}

// NameAs makes ActivateSession name another user than the chain had.
func (b *Broker) NameAs(userID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nameAs = userID
}

func (b *Broker) provider(name string) *brokerv1.Provider {
	i := slices.IndexFunc(b.providers, func(p *brokerv1.Provider) bool { return p.GetName() == name })
	if i < 0 {
		return nil
	}
	return b.providers[i]
}

// enter is what each method begins with; the lock is held when it returns nil.
func (b *Broker) enter(method string) error {
	b.mu.Lock()
	b.calls[method]++
	if b.down != nil {
		defer b.mu.Unlock()
		return b.down
	}
	if happens := b.during[method]; happens != nil {
		delete(b.during, method)
		b.mu.Unlock()
		happens()
		b.mu.Lock()
	}
	return nil
}

// ListProviders implements LoginServiceServer.
func (b *Broker) ListProviders(context.Context, *brokerv1.ListProvidersRequest) (*brokerv1.ListProvidersResponse, error) {
	if err := b.enter("ListProviders"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	answer := &brokerv1.ListProvidersResponse{ConfigDigest: "digest"}
	for _, p := range b.providers {
		answer.Providers = append(answer.Providers, proto.CloneOf(p))
	}
	return answer, nil
}

// BeginSession implements LoginServiceServer.
func (b *Broker) BeginSession(_ context.Context, in *brokerv1.BeginSessionRequest) (*brokerv1.BeginSessionResponse, error) {
	if err := b.enter("BeginSession"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	id := "session-" + rand.Text()
	b.sessions[id] = &session{
		clientID: in.GetClientId(), state: "pending",
		links: map[string]brokerv1.SessionLinkState{}, skips: map[string]brokerv1.SkipReason{},
	}
	return &brokerv1.BeginSessionResponse{SessionId: id, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}, nil
}

// pending returns a session that a leg may still add to, and its provider.
func (b *Broker) pending(id, provider string) (*session, *brokerv1.Provider, error) {
	s, p := b.sessions[id], b.provider(provider)
	switch {
	case s == nil:
		return nil, nil, fault.New(fault.NotFound, "no such session").WithReason("SESSION_NOT_FOUND")
	case s.state != "pending":
		return nil, nil, fault.New(fault.Precondition, "the session is not pending").WithReason("SESSION_ENDED")
	case p == nil:
		return nil, nil, fault.New(fault.NotFound, "no such provider").WithReason("PROVIDER_UNKNOWN", "provider", provider)
	}
	return s, p, nil
}

// RedeemCode implements LoginServiceServer.
func (b *Broker) RedeemCode(_ context.Context, in *brokerv1.RedeemCodeRequest) (_ *brokerv1.RedeemCodeResponse, failed error) {
	if err := b.enter("RedeemCode"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	s, p, err := b.pending(in.GetSessionId(), in.GetProvider())
	if err != nil {
		return nil, err
	}
	defer func() {
		if failed != nil {
			s.failures = append(s.failures, &brokerv1.FailedLeg{Provider: in.GetProvider()})
		}
	}()
	if b.redeem != nil {
		return nil, b.redeem
	}
	code, known := b.codes[in.GetCode()]
	delete(b.codes, in.GetCode())
	challenge := sha256.Sum256([]byte(in.GetCodeVerifier()))
	if !known || code.provider != in.GetProvider() || code.redirectURI != in.GetRedirectUri() ||
		code.challenge != base64.RawURLEncoding.EncodeToString(challenge[:]) {
		return nil, fault.New(fault.Precondition, "invalid_grant").WithReason("UPSTREAM_REFUSED", "provider", in.GetProvider())
	}
	if p.GetType() == brokerv1.ProviderType_PROVIDER_TYPE_OIDC && (in.GetNonce() == "" || code.nonce != in.GetNonce()) {
		return nil, fault.New(fault.Precondition, "the nonce differs").WithReason("IDENTITY_INVALID", "provider", in.GetProvider())
	}
	if p.GetPrimary() {
		s.userID = "user-" + code.identity.GetSubject()
	}
	if s.userID == "" {
		return nil, fault.New(fault.Precondition, "the primary leg comes first").WithReason("IDENTITY_INVALID", "provider", in.GetProvider())
	}
	s.links[p.GetName()] = brokerv1.SessionLinkState_SESSION_LINK_STATE_LINKED
	s.stage(p.GetName())
	answer := &brokerv1.RedeemCodeResponse{Identity: code.identity, UserId: s.userID, Links: b.links(s), LegId: s.legs[p.GetName()]}
	if before := b.accounts[s.userID+"/"+p.GetName()]; before != "" && before != code.identity.GetSubject() {
		answer.AccountChange = &brokerv1.AccountChange{PreviousName: before, NewName: code.identity.GetName()}
	}
	return answer, nil
}

func (b *Broker) links(s *session) []*brokerv1.SessionLink {
	var links []*brokerv1.SessionLink
	for _, p := range b.providers {
		state := s.links[p.GetName()]
		if state == 0 {
			state = brokerv1.SessionLinkState_SESSION_LINK_STATE_MISSING
		}
		links = append(links, &brokerv1.SessionLink{Provider: p.GetName(), State: state})
	}
	return links
}

// SkipProvider implements LoginServiceServer.
func (b *Broker) SkipProvider(_ context.Context, in *brokerv1.SkipProviderRequest) (*brokerv1.SkipProviderResponse, error) {
	if err := b.enter("SkipProvider"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	s, p, err := b.pending(in.GetSessionId(), in.GetProvider())
	if err != nil {
		return nil, err
	}
	if !p.GetOptional() {
		return nil, fault.New(fault.Precondition, "the provider is required")
	}
	s.links[p.GetName()] = brokerv1.SessionLinkState_SESSION_LINK_STATE_SKIPPED
	s.skips[p.GetName()] = in.GetReason()
	return &brokerv1.SkipProviderResponse{Links: b.links(s)}, nil
}

// ActivateSession implements LoginServiceServer.
func (b *Broker) ActivateSession(_ context.Context, in *brokerv1.ActivateSessionRequest) (*brokerv1.ActivateSessionResponse, error) {
	if err := b.enter("ActivateSession"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	s := b.sessions[in.GetSessionId()]
	switch {
	case s == nil:
		return nil, fault.New(fault.NotFound, "no such session").WithReason("SESSION_NOT_FOUND")
	case s.state == "ended" || s.clientID != in.GetClientId():
		return nil, fault.New(fault.Precondition, "the session has ended").WithReason("SESSION_ENDED")
	}
	for name, id := range s.legs {
		if len(in.GetLegIds()) > 0 && !slices.Contains(in.GetLegIds(), id) {
			s.links[name] = 0
		}
	}
	for _, p := range b.providers {
		if s.links[p.GetName()] == 0 && !p.GetOptional() {
			return nil, fault.New(fault.Precondition, "a required provider is missing").WithReason("PROVIDER_REQUIRED")
		}
	}
	if s.state == "pending" {
		s.state, s.ends = "active", time.Now().Add(b.life)
	}
	return &brokerv1.ActivateSessionResponse{
		UserId: cmp.Or(b.nameAs, s.userID), ExpiresAt: timestamppb.New(s.ends), Links: b.links(s),
	}, nil
}

// TouchSession implements LoginServiceServer.
func (b *Broker) TouchSession(_ context.Context, in *brokerv1.TouchSessionRequest) (*brokerv1.TouchSessionResponse, error) {
	if err := b.enter("TouchSession"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	s := b.sessions[in.GetSessionId()]
	if s == nil {
		return nil, fault.New(fault.NotFound, "no such session").WithReason("SESSION_NOT_FOUND")
	}
	if s.state != "active" || s.clientID != in.GetClientId() || !time.Now().Before(s.ends) {
		return nil, fault.New(fault.Precondition, "the session has ended").WithReason("SESSION_ENDED")
	}
	if s.locked {
		return nil, fault.New(fault.Precondition, "the session is locked").WithReason("SESSION_LOCKED")
	}
	return &brokerv1.TouchSessionResponse{ExpiresAt: timestamppb.New(s.ends)}, nil
}

// EndSession implements LoginServiceServer.
func (b *Broker) EndSession(_ context.Context, in *brokerv1.EndSessionRequest) (*brokerv1.EndSessionResponse, error) {
	if err := b.enter("EndSession"); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	if s := b.sessions[in.GetSessionId()]; s != nil && s.state != "ended" {
		s.state, s.reason = "ended", in.GetReason()
		if leg := in.GetFailedLeg(); leg != nil {
			s.failures = append(s.failures, leg)
		}
	}
	return &brokerv1.EndSessionResponse{}, nil
}
