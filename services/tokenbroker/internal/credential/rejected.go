package credential

import (
	"context"

	"chatelaine.dev/internal/config"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
)

// ReportRejected implements broker.v1.CredentialService.
func (s *Service) ReportRejected(ctx context.Context, in *brokerv1.ReportRejectedRequest) (*brokerv1.ReportRejectedResponse, error) {
	refused, err := parseVersion(in.GetCredentialVersion())
	if err != nil {
		return nil, err
	}
	rec := audit.Record{Backend: in.GetBackend()}
	r, err := s.resolve(ctx, in.GetConfigDigest(), in.GetBackend(), in.GetAccessToken(), &rec)
	if err != nil { // or else tokens could be tried here without a trace
		s.recordRefusal(ctx, rec, err)
		return nil, err
	}
	// A renewal records itself.
	renewed, err := s.replace(ctx, r, refused)
	if err != nil {
		return nil, err
	}
	return &brokerv1.ReportRejectedResponse{Renewed: renewed}, nil
}

// replace makes sure that another credential than the refused one is served
// next, and reports whether that is so.
func (s *Service) replace(ctx context.Context, r *request, refused version) (bool, error) {
	strategy := &r.backend.Strategy
	switch {
	case refused.kind != kindOf(strategy.Type):
		return true, nil // of an earlier configuration
	case r.backend.static != nil:
		_, tag, err := r.backend.static.current(true)
		if err != nil {
			return false, nil //nolint:nilerr // the last value stays in use, so nothing is new; GetCredential logs it
		}
		return tag != refused.tag, nil
	case strategy.Type == config.StrategyUnauthenticated:
		return false, nil
	case strategy.Provider() == "":
		rejection := r.backend.exchange.Reject(actedBy(r, callerKey(r)), refused.number, refused.generation)
		return rejection != exchange.Spent, nil
	}
	return s.replaceConnection(ctx, r, refused)
}

func kindOf(t config.StrategyType) kind {
	switch t {
	case config.StrategyUpstreamInject:
		return kindConnection
	case config.StrategyTokenExchange:
		return kindExchange
	case config.StrategyHeaderInjection, config.StrategyBearerToken:
		return kindStatic
	default:
		return kindNone
	}
}

func callerKey(r *request) string {
	if r.caller.sessionID != "" {
		return exchange.SessionKey(r.caller.sessionID)
	}
	return exchange.CallerKey(r.caller.token)
}

// replaceConnection drops an exchanged token, or renews the connection whose
// token was refused, or whose exchanged tokens were, one after another.
func (s *Service) replaceConnection(ctx context.Context, r *request, refused version) (bool, error) {
	provider := r.backend.Strategy.Provider()
	t, err := s.fresh(ctx, r, provider) // what is refused may be what memory holds
	if err != nil {
		return false, err
	}
	if t.ConnectionID != refused.connection || t.Version != refused.number {
		s.cfg.Memory.forget(tokenKey{r.caller.sessionID, provider, t.Realm})
		return true, nil
	}
	if r.backend.exchange != nil {
		if rejection := r.backend.exchange.Reject(actedBy(r, exchange.ConnectionKey(t.ConnectionID)), t.Version, refused.generation); rejection != exchange.Spent {
			return true, nil
		}
	}
	// A backend that takes no token gets no renewal for each.
	forced := forcedKey{connection: t.ConnectionID, backend: r.backend.Name}
	if !s.forced.may(forced, ofBackend) {
		now, err := s.fresh(ctx, r, provider) // renewed since t was read, for a report like this one
		return err == nil && (now.ConnectionID != t.ConnectionID || now.Version != t.Version), err
	}
	renewed, err := s.renew(ctx, r, provider, &t)
	if renewed {
		s.forced.note(forced, ofBackend)
	}
	return renewed, err
}
