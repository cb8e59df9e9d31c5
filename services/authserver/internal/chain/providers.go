package chain

import (
	"context"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// providers asks the broker for the providers, primary first. A chain keeps them
// as they were when it began: what the person consents to is what runs.
func (c *Chain) providers(ctx context.Context) ([]store.Provider, error) {
	answer, err := c.cfg.Broker.ListProviders(ctx, &brokerv1.ListProvidersRequest{})
	if err != nil {
		return nil, err
	}
	list := make([]store.Provider, 0, len(answer.GetProviders()))
	for _, p := range answer.GetProviders() {
		list = append(list, store.Provider{
			Name: p.GetName(), OIDC: p.GetType() == brokerv1.ProviderType_PROVIDER_TYPE_OIDC,
			Primary: p.GetPrimary(), Optional: p.GetOptional(), Issuer: p.GetIssuer(),
			AuthorizationEndpoint: p.GetAuthorizationEndpoint(), ClientID: p.GetClientId(),
			Scopes: p.GetScopes(), RedirectURI: p.GetRedirectUri(), Parameters: p.GetAuthorizationParameters(),
			IssRequired: p.GetResponseIssRequired(), Unavailable: p.GetUnavailableReason() != "",
			State: store.LinkMissing,
		})
	}
	if len(list) == 0 || !list[0].Primary {
		return nil, fault.New(fault.Internal, "the broker lists no primary provider first")
	}
	return list, nil
}
