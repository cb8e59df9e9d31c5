package upstream_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

func newKey(t testing.TB) (text string, public *jose.JSONWebKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		&jose.JSONWebKey{Key: key.Public(), KeyID: "key-of-ours", Use: "sig"}
}

// A provider that takes no secrets is logged in at, refreshed at and revoked at by a
// key, at one that we did not write.
func TestRealProviderJourneyByPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	text, public := newKey(t)
	op := optest.StartWithKey(t, public)
	keyed := func(p *config.Provider) {
		p.ClientSecret, p.AuthMethod = nil, config.AuthMethodPrivateKeyJWT
		p.ClientKey = &config.ClientKey{Key: secret.Ref{Name: "corp", Key: "client-key"}, ID: public.KeyID}
	}
	provider := func(text string, change func(*config.Provider)) *upstream.Provider {
		p := config.Provider{
			Name: "corp", Type: config.ProviderOIDC, Primary: true, ClientID: optest.ClientID,
			RedirectURI: optest.RedirectURI, Scopes: []string{"openid", "profile", "email", "offline_access"},
			OIDC: &config.OIDCProvider{Issuer: op.Issuer, SubjectClaim: "sub"},
		}
		keyed(&p)
		if change != nil {
			change(&p)
		}
		return build(t, p, map[string]string{"CORP_CLIENT_KEY": text, "CORP_CLIENT_SECRET": optest.ClientSecret})
	}
	p := provider(text, nil)
	g := redeem(t, p, op)
	r, err := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: g.RefreshToken, Subject: g.Identity.Subject, Scopes: g.Scopes})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	// Whoever has not the key gets nothing.
	foreign, _ := newKey(t)
	for name, stranger := range map[string]*upstream.Provider{
		"another key": provider(foreign, nil),
		"a secret": provider(text, func(p *config.Provider) {
			p.ClientKey, p.ClientSecret, p.AuthMethod = nil, &secret.Ref{Name: "corp", Key: "client-secret"}, config.AuthMethodBasic
		}),
		"an audience of somebody else": provider(text, func(p *config.Provider) { p.ClientKey.Audience = "https://other.example.com" }),
		"a kid that is not registered": provider(text, func(p *config.Provider) { p.ClientKey.ID = "" }),
	} {
		_, err := stranger.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: r.RefreshToken, Subject: g.Identity.Subject})
		if fault.ReasonOf(err) != reason.UpstreamRefused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.Revoke(t.Context(), r.RefreshToken, upstream.HintRefreshToken); err != nil {
		t.Fatal(fault.Detail(err))
	}
	_, err = p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: r.RefreshToken, Subject: g.Identity.Subject})
	wantRefused(t, err, upstream.ErrorInvalidGrant)
}

func TestAKeyThatIsNoKeyIsReadableAtStart(t *testing.T) {
	t.Parallel()
	_, err := upstream.NewRegistry(deployment(config.Provider{
		Name: "corp", Type: config.ProviderOIDC, ClientID: "c", AuthMethod: config.AuthMethodPrivateKeyJWT,
		ClientKey: &config.ClientKey{Key: secret.Ref{Name: "corp", Key: "client-key"}},
		OIDC:      &config.OIDCProvider{Issuer: "https://idp.example.com", SubjectClaim: "sub"},
	}), upstream.Config{Secrets: resolver(map[string]string{"CORP_CLIENT_KEY": "no key"})})
	if fault.KindOf(err) != fault.Invalid || err.Error() != "provider corp: secret corp/client-key: is not a PEM private key" {
		t.Errorf("%v", err)
	}
}
