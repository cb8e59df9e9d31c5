package chain

import (
	"context"
	"slices"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// providersFor is how long the broker's list is believed: strangers can open the
// consent page as often as they like, and the broker has better things to do.
const providersFor = 2 * time.Second

// providerList is the list of a moment ago.
type providerList struct {
	list  []store.Provider
	until time.Time
}

// providers returns the broker's providers, primary first. A chain keeps them as
// they were when it began: what the person consents to is what runs. One call is
// under way at a time; errors are not kept.
func (c *Chain) providers(ctx context.Context) ([]store.Provider, error) {
	select {
	case known := <-c.known:
		defer func() { c.known <- known }()
		if time.Now().After(known.until) {
			list, err := c.listProviders(ctx)
			if err != nil {
				return nil, err
			}
			known = providerList{list: list, until: time.Now().Add(providersFor)}
		}
		return slices.Clone(known.list), nil
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
}

func (c *Chain) listProviders(ctx context.Context) ([]store.Provider, error) {
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
