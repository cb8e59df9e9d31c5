package login

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	// maxPlans bounds how often an activation is prepared anew because somebody
	// renewed or replaced a connection meanwhile.
	maxPlans = 10
	// lookEvery is how often it looks whether the renewal is done.
	lookEvery = 50 * time.Millisecond
)

// ActivateSession implements LoginService.
func (s *Service) ActivateSession(ctx context.Context, req *brokerv1.ActivateSessionRequest) (*brokerv1.ActivateSessionResponse, error) {
	snapshot := s.cfg.Current()
	session, err := s.activate(ctx, snapshot, req)
	if err != nil {
		return nil, err
	}
	return &brokerv1.ActivateSessionResponse{
		UserId:    session.UserID,
		ExpiresAt: timestamppb.New(session.EndsAt),
		Links:     Links(snapshot.Providers, &session),
	}, nil
}

func (s *Service) activate(ctx context.Context, snapshot *deployment.Snapshot, req *brokerv1.ActivateSessionRequest) (store.Session, error) {
	patience, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	for range maxPlans {
		plan, err := s.plan(ctx, patience, snapshot, req)
		if err != nil {
			return store.Session{}, err
		}
		if plan.Session.State == store.SessionActive && len(plan.Legs) == 0 {
			return plan.Session, nil
		}
		activation, err := s.prepare(ctx, snapshot, &plan)
		if err != nil {
			return store.Session{}, err
		}
		session, err := s.cfg.Legs.Activate(ctx, activation)
		if store.IsStale(err) {
			continue
		}
		if err == nil && plan.Session.State == store.SessionPending {
			s.cfg.Audit.Log(ctx, activation.Record)
		}
		return session, err
	}
	return store.Session{}, fault.New(fault.Unavailable, "the session's connections keep changing; try again")
}

// plan returns what an activation may start from. While a renewal spends a refresh
// token that the activation would keep, it waits: for the token that takes its
// place, or until the renewal has failed, at most while patience lasts.
func (s *Service) plan(ctx, patience context.Context, snapshot *deployment.Snapshot, req *brokerv1.ActivateSessionRequest) (store.Plan, error) {
	for {
		plan, err := s.cfg.Legs.PlanActivation(ctx, req.GetSessionId(), PendingLifetime)
		if err != nil {
			return plan, err
		}
		usable(snapshot, &plan, req.GetLegIds())
		if err := check(snapshot, &plan, req.GetClientId()); err != nil {
			return plan, err
		}
		if !slices.ContainsFunc(plan.Legs, beingSpent) {
			return plan, nil
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-timer.C:
		case <-patience.Done():
			timer.Stop()
			if err := ctx.Err(); err != nil {
				return plan, fault.From(err)
			}
			return plan, nil // the login stands without that token
		}
	}
}

// keepsRefreshToken says that a leg brought no refresh token and its connection has
// one. Where accounts cannot be told apart, it may be another one's.
func keepsRefreshToken(leg *store.PlannedLeg) bool {
	old := leg.Existing
	return old != nil && !leg.Refreshable && leg.Subject != "" && old.Refreshable && old.Status == store.ConnectionActive
}

// beingSpent says that somebody is renewing with the refresh token that the leg
// would keep.
func beingSpent(leg store.PlannedLeg) bool {
	return keepsRefreshToken(&leg) && leg.Existing.Clock.LeaseRemaining > 0
}

// usable drops legs of providers that the configuration no longer has, or has
// pointed at another realm, since the leg ran; and, where the chain says which legs it
// has seen, those that came after: nobody has confirmed whose account they are.
func usable(snapshot *deployment.Snapshot, plan *store.Plan, seen []string) {
	legs := plan.Legs[:0]
	for _, l := range plan.Legs {
		if len(seen) > 0 && !slices.Contains(seen, l.ID) {
			continue
		}
		if p, err := snapshot.Providers.Provider(l.Provider); err == nil && p.Realm() == l.Realm {
			legs = append(legs, l)
		}
	}
	plan.Legs = legs
}

// check refuses sessions that are over, another client's, or not complete.
func check(snapshot *deployment.Snapshot, plan *store.Plan, clientID string) error {
	session := &plan.Session
	switch {
	case session.ClientID != clientID:
		return store.ClientMismatch()
	case session.Over():
		return fault.New(fault.Precondition, "the session has ended").WithReason(reason.SessionEnded)
	case session.State == store.SessionActive:
		return nil
	}
	has := make(map[string]bool, len(plan.Legs))
	for i := range plan.Legs {
		has[plan.Legs[i].Provider] = true
	}
	for _, p := range snapshot.Providers.Providers() {
		if !p.Optional() && !has[p.Name()] {
			return required(p.Name())
		}
	}
	return nil
}

// prepare opens the staged tokens and seals them for the connections that they become.
func (s *Service) prepare(ctx context.Context, snapshot *deployment.Snapshot, plan *store.Plan) (store.Activation, error) {
	session := &plan.Session
	a := store.Activation{
		SessionID: session.ID, UserID: session.UserID, Lifetime: SessionLifetime, Idle: idle(snapshot),
		Record: audit.Record{
			Action: audit.SessionActivated, Outcome: audit.Success,
			SessionID: session.ID, UserID: session.UserID, ClientID: session.ClientID,
		}.Complete(ctx),
	}
	for i := range plan.Legs {
		leg := &plan.Legs[i]
		promotion, err := s.promotion(ctx, leg)
		if err != nil {
			return a, err
		}
		a.Promotions = append(a.Promotions, promotion)
		if p, err := snapshot.Providers.Provider(leg.Provider); err == nil && p.Primary() {
			a.LoginLeg, a.LoginName = leg.ID, leg.Name
		}
	}
	return a, nil
}

func (s *Service) promotion(ctx context.Context, leg *store.PlannedLeg) (store.Promotion, error) {
	p := store.Promotion{
		LegID: leg.ID, ConnectionID: store.NewConnectionID(), Provider: leg.Provider,
		Account: leg.Account, Grant: leg.Grant,
	}
	tokens, err := s.cfg.Sealer.OpenTokens(ctx, leg.Sealed, leg.Place())
	if err != nil {
		return p, err
	}
	if old := leg.Existing; old != nil {
		p.ConnectionID, p.FromVersion = old.ID, old.Version
		if keepsRefreshToken(leg) && !beingSpent(*leg) {
			s.keepRefreshToken(ctx, old, &p, &tokens)
		}
	}
	p.Sealed, err = s.cfg.Sealer.SealTokens(ctx, tokens, store.ConnectionPlace(p.ConnectionID, p.FromVersion+1))
	return p, err
}

// keepRefreshToken carries the refresh token of a connection over to a login that
// brought none. Without it the login stands all the same.
func (s *Service) keepRefreshToken(ctx context.Context, old *store.Connection, p *store.Promotion, tokens *seal.Tokens) {
	before, err := s.cfg.Sealer.OpenTokens(ctx, old.Sealed, old.Place())
	if err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the refresh token of a connection could not be kept",
			slog.String("connection_id", old.ID), fault.Attr(err))
		return
	}
	tokens.RefreshToken, p.Refreshable, p.KeepsRefreshToken = before.RefreshToken, true, true
}
