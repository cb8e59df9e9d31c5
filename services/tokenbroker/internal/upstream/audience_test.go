package upstream

import (
	"testing"

	"chatelaine.dev/internal/config"
)

// An assertion for the wrong audience is refused by the provider, or opens another one.
func TestAudienceOfClientAssertions(t *testing.T) {
	t.Parallel()
	const tenant = "https://login.microsoftonline.com/t/"
	for _, c := range []struct{ name, issuer, token, configured, want string }{
		{"the issuer", "https://idp.example.com", "https://idp.example.com/token", "", "https://idp.example.com"},
		{"configured", "https://idp.example.com", "https://idp.example.com/token", "https://x", "https://x"},
		{"Entra", tenant + "v2.0", tenant + "oauth2/v2.0/token", "", tenant + "oauth2/v2.0/token"},
		{"Entra, external", "https://t.ciamlogin.com/t/v2.0", "https://t.ciamlogin.com/t/oauth2/v2.0/token", "", "https://t.ciamlogin.com/t/oauth2/v2.0/token"},
		{"a token endpoint elsewhere", tenant + "v2.0", "https://evil.example.com/token", "", tenant + "v2.0"},
		{"a name that looks like it", "https://ciamlogin.com.evil.example.com", "https://ciamlogin.com.evil.example.com/t", "", "https://ciamlogin.com.evil.example.com"},
		{"plain OAuth 2.0", "", "https://code.example.com/token", "", "https://code.example.com/token"},
	} {
		p := &Provider{cfg: &config.Provider{ClientKey: &config.ClientKey{Audience: c.configured}}}
		if c.issuer != "" {
			p.cfg.OIDC = &config.OIDCProvider{Issuer: c.issuer}
		}
		if got := p.assertionAudience(endpoints{token: c.token}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
