package upstream_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

const testVerifier = "verifier-verifier-verifier-verifier-verifier"

func realProvider(t *testing.T, op *optest.OP, change func(*config.Provider)) *upstream.Provider {
	t.Helper()
	p := config.Provider{
		Name: "corp", Type: config.ProviderOIDC, Primary: true,
		ClientID: optest.ClientID, ClientSecret: &secret.Ref{Name: "corp", Key: "client-secret"},
		RedirectURI: optest.RedirectURI, Scopes: []string{"openid", "profile", "email", "offline_access"},
		OIDC: &config.OIDCProvider{Issuer: op.Issuer, SubjectClaim: "sub"},
	}
	if change != nil {
		change(&p)
	}
	return build(t, p, map[string]string{"CORP_CLIENT_SECRET": optest.ClientSecret})
}

func redeem(t *testing.T, p *upstream.Provider, op *optest.OP) upstream.Grant {
	t.Helper()
	g, err := p.Redeem(t.Context(), upstream.RedeemRequest{
		Code: secret.New(op.Code(t, testVerifier, "n-1")), Verifier: secret.New(testVerifier), Nonce: "n-1",
	})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return g
}

// A person's login, refresh and disconnect at a provider that we did not write.
func TestRealProviderJourney(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"", config.AuthMethodPost} {
		t.Run("client authentication "+method, func(t *testing.T) {
			t.Parallel()
			op := optest.Start(t)
			p := realProvider(t, op, func(p *config.Provider) { p.AuthMethod = method })

			d, err := p.Describe(t.Context())
			if err != nil {
				t.Fatal(fault.Detail(err))
			}
			if d.AuthorizationEndpoint != op.Issuer+"/authorize" || d.Issuer != op.Issuer || d.ResponseIssRequired {
				t.Fatalf("description: %+v", d)
			}
			g := redeem(t, p, op)
			if g.Identity.Subject != optest.Subject || g.Identity.Name != optest.Name || g.Realm != op.Issuer {
				t.Errorf("identity %+v in realm %s", g.Identity, g.Realm)
			}
			if g.AccessToken.IsZero() || g.RefreshToken.IsZero() || g.IDToken.IsZero() {
				t.Error("a token is missing")
			}
			if !g.HasExpiry || time.Until(g.ExpiresAt) < time.Minute {
				t.Errorf("expires at %v (%v)", g.ExpiresAt, g.HasExpiry)
			}
			if !slices.Contains(g.Scopes, "offline_access") {
				t.Errorf("scopes %q", g.Scopes)
			}

			r, err := p.Refresh(t.Context(), upstream.RefreshRequest{
				RefreshToken: g.RefreshToken, Subject: g.Identity.Subject, Scopes: g.Scopes,
			})
			if err != nil {
				t.Fatal(fault.Detail(err))
			}
			if r.RefreshToken.Equal(g.RefreshToken) || r.AccessToken.Equal(g.AccessToken) {
				t.Error("the refresh brought no new tokens")
			}
			if r.Identity.Subject != optest.Subject {
				t.Errorf("subject %q after the refresh", r.Identity.Subject)
			}

			// The old refresh token was rotated away: a certain invalid_grant.
			_, err = p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: g.RefreshToken, Subject: g.Identity.Subject})
			wantRefused(t, err, upstream.ErrorInvalidGrant)

			if err := p.Revoke(t.Context(), r.RefreshToken, upstream.HintRefreshToken); err != nil {
				t.Fatal(fault.Detail(err))
			}
			_, err = p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: r.RefreshToken, Subject: g.Identity.Subject})
			wantRefused(t, err, upstream.ErrorInvalidGrant)
		})
	}
}

// Another person's id token must not renew this person's connection.
func TestRealProviderRefreshForAnotherSubject(t *testing.T) {
	t.Parallel()
	op := optest.Start(t)
	p := realProvider(t, op, nil)
	g := redeem(t, p, op)
	_, err := p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: g.RefreshToken, Subject: "somebody else"})
	wantIdentityInvalid(t, err, "subject_changed")
}

func TestRealProviderRejectsStolenCode(t *testing.T) {
	t.Parallel()
	op := optest.Start(t)
	p := realProvider(t, op, nil)

	t.Run("without the verifier", func(t *testing.T) {
		_, err := p.Redeem(t.Context(), upstream.RedeemRequest{
			Code: secret.New(op.Code(t, testVerifier, "n")), Verifier: secret.New(strings.Repeat("x", 43)), Nonce: "n",
		})
		wantReason(t, err, reason.UpstreamRefused)
	})
	t.Run("of another login", func(t *testing.T) {
		_, err := p.Redeem(t.Context(), upstream.RedeemRequest{
			Code: secret.New(op.Code(t, testVerifier, "their nonce")), Verifier: secret.New(testVerifier), Nonce: "our nonce",
		})
		wantIdentityInvalid(t, err, "nonce")
	})
	t.Run("redeemed before", func(t *testing.T) {
		code := secret.New(op.Code(t, testVerifier, "n"))
		r := upstream.RedeemRequest{Code: code, Verifier: secret.New(testVerifier), Nonce: "n"}
		if _, err := p.Redeem(t.Context(), r); err != nil {
			t.Fatal(fault.Detail(err))
		}
		_, err := p.Redeem(t.Context(), r)
		wantReason(t, err, reason.UpstreamRefused)
	})
}
