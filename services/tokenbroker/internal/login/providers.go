package login

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// describeTimeout bounds the discovery of all providers together: a slow one is
// listed as unavailable and must not hold up the page that lists the others.
const describeTimeout = 5 * time.Second

// ListProviders implements LoginService.
func (s *Service) ListProviders(ctx context.Context, _ *brokerv1.ListProvidersRequest) (*brokerv1.ListProvidersResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	snapshot := s.cfg.Current()
	providers := snapshot.Providers.Providers()
	list := make([]*brokerv1.Provider, len(providers))
	var wg sync.WaitGroup
	for i, p := range providers {
		wg.Go(func() { list[i] = s.describe(ctx, p) })
	}
	wg.Wait()
	return &brokerv1.ListProvidersResponse{Providers: list, ConfigDigest: snapshot.Digest}, nil
}

func (s *Service) describe(ctx context.Context, p *upstream.Provider) *brokerv1.Provider {
	d, err := p.Describe(ctx)
	listed := &brokerv1.Provider{
		Name: d.Name, Primary: d.Primary, Optional: d.Optional, Issuer: d.Issuer,
		AuthorizationEndpoint: d.AuthorizationEndpoint, ClientId: d.ClientID, Scopes: d.Scopes,
		RedirectUri: d.RedirectURI, AuthorizationParameters: d.AuthorizationParams,
		ResponseIssRequired: d.ResponseIssRequired,
	}
	switch d.Type {
	case config.ProviderOIDC:
		listed.Type = brokerv1.ProviderType_PROVIDER_TYPE_OIDC
	case config.ProviderOAuth2:
		listed.Type = brokerv1.ProviderType_PROVIDER_TYPE_OAUTH2
	}
	if err != nil {
		listed.UnavailableReason = fault.From(err).Error()
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "nobody can log in at a provider", slog.String("provider", d.Name), fault.Attr(err))
	}
	return listed
}
