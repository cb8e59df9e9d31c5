package brokertest

import (
	"chatelaine.dev/internal/config"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// Corp is a primary OpenID provider, Octohub an optional OAuth 2.0 one, both of
// an authorization server at issuer.
func Corp(issuer string) *brokerv1.Provider {
	return &brokerv1.Provider{
		Name: "corp", Type: brokerv1.ProviderType_PROVIDER_TYPE_OIDC, Primary: true, Issuer: "https://corp.example",
		AuthorizationEndpoint: "https://corp.example/authorize?tenant=1", ClientId: "chatelaine",
		Scopes: []string{"openid", "profile", "email", "offline_access"}, RedirectUri: issuer + "/oauth/callback/corp",
		AuthorizationParameters: map[string]string{"access_type": "offline", "state": "never-taken"},
	}
}

// Octohub is the second provider of the demo.
func Octohub(issuer string) *brokerv1.Provider {
	return &brokerv1.Provider{
		Name: "octohub", Type: brokerv1.ProviderType_PROVIDER_TYPE_OAUTH2, Optional: true,
		AuthorizationEndpoint: "https://octohub.example/login/oauth/authorize", ClientId: "chatelaine",
		Scopes: []string{"repo", "read:user"}, RedirectUri: issuer + "/oauth/callback/octohub",
	}
}

// Of returns a broker with the providers of a deployment, listed as the real one
// lists them.
func Of(d *config.Deployment) *Broker {
	var list []*brokerv1.Provider
	for i := range d.AuthServer.Providers {
		p := &d.AuthServer.Providers[i]
		listed := &brokerv1.Provider{
			Name: p.Name, Primary: p.Primary, Optional: p.Optional, ClientId: p.ClientID, Scopes: p.Scopes,
			RedirectUri: p.RedirectURI, AuthorizationParameters: p.AuthorizationParams,
		}
		switch {
		case p.OIDC != nil:
			listed.Type, listed.Issuer = brokerv1.ProviderType_PROVIDER_TYPE_OIDC, p.OIDC.Issuer
			listed.AuthorizationEndpoint = p.OIDC.Issuer + "/authorize"
		case p.OAuth2 != nil:
			listed.Type, listed.AuthorizationEndpoint = brokerv1.ProviderType_PROVIDER_TYPE_OAUTH2, p.OAuth2.AuthorizationEndpoint
		}
		list = append(list, listed)
	}
	return New(list...)
}
