package login

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// storeTimeout bounds keeping what an upstream has granted, also when the caller
// went away meanwhile.
const storeTimeout = 10 * time.Second

// RedeemCode implements LoginService. No transaction is open during the upstream's
// answer; what can be refused without it is refused before, so that no code is
// spent for nothing.
func (s *Service) RedeemCode(ctx context.Context, req *brokerv1.RedeemCodeRequest) (*brokerv1.RedeemCodeResponse, error) {
	snapshot := s.cfg.Current()
	session, err := s.cfg.Sessions.LoadSession(ctx, req.GetSessionId())
	if err != nil {
		return nil, err
	}
	provider, err := runnable(snapshot, &session, req.GetProvider())
	if err != nil {
		s.legFailed(ctx, &session, req.GetProvider(), err)
		return nil, err
	}
	grant, err := provider.Redeem(ctx, upstream.RedeemRequest{
		Code: secret.New(req.GetCode()), Verifier: secret.New(req.GetCodeVerifier()),
		Nonce: req.GetNonce(), RedirectURI: req.GetRedirectUri(),
	})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err != nil {
		s.legFailed(ctx, &session, provider.Name(), err)
		return nil, err
	}
	staged, err := s.stage(ctx, snapshot, &session, provider, &grant)
	if err != nil {
		s.legFailed(ctx, &session, provider.Name(), err)
		return nil, err
	}
	s.cfg.Audit.Log(ctx, staged.Record)

	resp := &brokerv1.RedeemCodeResponse{
		Identity: &brokerv1.Identity{Subject: grant.Identity.Subject, Name: grant.Identity.Name, Email: grant.Identity.Email},
		UserId:   staged.Session.UserID,
		LegId:    staged.LegID,
		Links:    Links(snapshot.Providers, &staged.Session),
	}
	if staged.Previous != nil {
		resp.AccountChange = &brokerv1.AccountChange{
			PreviousName: display(staged.Previous.Name, staged.Previous.Subject),
			NewName:      display(grant.Identity.Name, grant.Identity.Subject),
		}
	}
	return resp, nil
}

// runnable returns the provider whose leg may run in this session now.
func runnable(snapshot *deployment.Snapshot, session *store.Session, name string) (*upstream.Provider, error) {
	provider, err := snapshot.Providers.Provider(name)
	switch {
	case err != nil:
		return nil, err
	case session.Over():
		return nil, fault.New(fault.Precondition, "the session has ended").WithReason(reason.SessionEnded)
	case session.UserID == "" && !provider.Primary():
		return nil, fault.New(fault.Precondition, "the primary provider's leg must run first").WithReason(reason.PrimaryRequired)
	}
	return provider, nil
}

// stage seals what was granted and keeps it on the session.
func (s *Service) stage(ctx context.Context, snapshot *deployment.Snapshot, session *store.Session, p *upstream.Provider, g *upstream.Grant) (store.Staged, error) {
	leg := store.NewLeg{
		StagedLeg: store.StagedLeg{
			ID: store.NewLegID(), SessionID: session.ID, Provider: p.Name(),
			Account: store.Account{Realm: g.Realm, Subject: g.Identity.Subject, Name: g.Identity.Name},
			Grant:   store.Grant{Scopes: g.Scopes, Refreshable: !g.RefreshToken.IsZero()},
		},
		Record: audit.Record{
			Action: audit.LegRedeemed, Outcome: audit.Success, SessionID: session.ID, Provider: p.Name(),
		}.Complete(ctx),
	}
	if g.HasExpiry {
		leg.Validity = refresh.Validity(g)
	}
	if p.Primary() {
		leg.Primary = &store.PrimaryIdentity{Realm: g.Realm, SubjectField: cmp.Or(g.Identity.SubjectField, p.SubjectField()), Subject: g.Identity.Subject}
	}
	for _, configured := range snapshot.Providers.Providers() {
		leg.Configured = append(leg.Configured, configured.Name())
	}
	var err error
	leg.Sealed, err = s.cfg.Sealer.SealTokens(ctx, seal.Tokens{
		AccessToken: g.AccessToken, RefreshToken: g.RefreshToken, IDToken: g.IDToken,
	}, leg.Place())
	if err != nil {
		return store.Staged{}, err
	}
	staged, err := s.cfg.Legs.StageLeg(ctx, leg)
	if err != nil {
		s.giveUp(ctx, session.UserID, &leg.StagedLeg)
	}
	return staged, err
}

// giveUp has tokens revoked that found no place. The caller learns of the failure
// itself either way, and may be gone by now.
func (s *Service) giveUp(ctx context.Context, userID string, leg *store.StagedLeg) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTimeout)
	defer cancel()
	if err := s.cfg.Legs.QueueRevocation(ctx, store.OfLeg(userID, leg)); err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "tokens that could not be stored will not be revoked at their provider",
			slog.String("provider", leg.Provider), fault.Attr(err))
	}
}

// giveUpTimeout bounds a write that nobody waits for.
const giveUpTimeout = 5 * time.Second

// legFailed keeps a record; the caller learns of the failure itself either way.
func (s *Service) legFailed(ctx context.Context, session *store.Session, provider string, cause error) {
	err := s.cfg.Audit.Record(ctx, audit.Record{
		Action: audit.LegFailed, Outcome: audit.Outcome(cause), Provider: provider,
		SessionID: session.ID, UserID: session.UserID, ClientID: session.ClientID,
	})
	if err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "an audit record was lost", fault.Attr(err))
	}
}

// display is what a person recognises an account by.
func display(name, subject string) string {
	if name != "" {
		return name
	}
	return subject
}
