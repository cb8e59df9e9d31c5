package bearer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"chatelaine.dev/internal/fault"
)

// statusError is an answer other than 200.
type statusError struct {
	host   string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answered with status %d", e.host, e.status)
}

// discover finds jwks_uri in the issuer's metadata: OpenID Connect Discovery 1.0
// section 4, and RFC 8414 section 3 for issuers that have only that.
func (s *keySet) discover(ctx context.Context) (string, error) {
	candidates, err := metadataURLs(s.cfg.Issuer)
	if err != nil {
		return "", err
	}
	var last error
	for _, candidate := range candidates {
		var document struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		last = getJSON(ctx, s.cfg.Client, candidate, &document)
		if se, ok := errors.AsType[*statusError](last); ok && se.status >= 400 && se.status < 500 {
			continue // not published in this place
		}
		if last != nil {
			return "", last
		}
		// Both specifications: a document of another issuer must not be used.
		if document.Issuer != s.cfg.Issuer {
			return "", fault.Wrap(fault.Unavailable, errFetch, "the issuer's metadata is that of another issuer")
		}
		return document.JWKSURI, s.checkJWKSURI(document.JWKSURI)
	}
	return "", last
}

// checkJWKSURI refuses keys over a weaker way than the issuer's own URL.
func (s *keySet) checkJWKSURI(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.User != nil ||
		(u.Scheme != "https" && (u.Scheme != "http" || !strings.HasPrefix(s.cfg.Issuer, "http://"))) {
		return fault.Wrap(fault.Unavailable, errFetch, "the issuer's metadata has no usable jwks_uri")
	}
	return nil
}

func metadataURLs(issuer string) ([]string, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New(fault.Unavailable, "the issuer is not a URL, so its keys cannot be discovered")
	}
	origin := url.URL{Scheme: u.Scheme, Host: u.Host}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	appended := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	inserted := origin.String() + "/.well-known/oauth-authorization-server" + path
	return []string{appended, inserted}, nil
}
