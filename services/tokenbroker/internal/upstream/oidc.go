package upstream

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

const (
	metadataFreshFor  = time.Hour
	metadataUsableFor = 24 * time.Hour
	keysFreshFor      = 10 * time.Minute
	keysUsableFor     = 24 * time.Hour
)

// oidc is an OpenID Connect provider.
type oidc struct {
	p        *Provider
	metadata cached[metadata]
	keys     cached[keySet]
}

// metadata is what of OpenID Connect Discovery 1.0, section 3, is used.
type metadata struct {
	endpoints
	jwks string
}

func newOIDC(p *Provider) *oidc {
	o := &oidc{p: p}
	o.metadata = cached[metadata]{fetch: o.discover, freshFor: metadataFreshFor, usableFor: metadataUsableFor, now: p.now}
	o.keys = cached[keySet]{fetch: o.fetchKeys, freshFor: keysFreshFor, usableFor: keysUsableFor, now: p.now}
	return o
}

func (o *oidc) endpoints(ctx context.Context) (endpoints, error) {
	m, err := o.metadata.get(ctx, nil)
	return m.endpoints, err
}

// discover reads the metadata document (OpenID Connect Discovery 1.0, section 4).
func (o *oidc) discover(ctx context.Context) (metadata, error) {
	var m metadata
	err := o.p.client.Do(ctx, endpoint.Request{
		Operation: "discovery", Method: "GET",
		URL: strings.TrimSuffix(o.p.cfg.OIDC.Issuer, "/") + "/.well-known/openid-configuration",
	}, func(resp *endpoint.Response) error {
		doc, err := endpoint.ParseJSON(resp.Body)
		if err != nil {
			return o.p.client.Malformed(err, "discovery document")
		}
		// Section 4.3: exactly the URL that was configured.
		if issuer, _ := doc.String(endpoint.Path{"issuer"}); issuer != o.p.cfg.OIDC.Issuer {
			return o.p.client.Malformed(nil, "discovery document: its issuer differs from the configured issuerUrl")
		}
		return o.readMetadata(doc, &m)
	})
	return m, err
}

func (o *oidc) readMetadata(doc endpoint.Document, m *metadata) error {
	for _, f := range []struct {
		name     string
		required bool
		into     *string
	}{
		{"authorization_endpoint", true, &m.authorization},
		{"token_endpoint", true, &m.token},
		{"jwks_uri", true, &m.jwks},
		{"userinfo_endpoint", false, &m.userInfo},
		{"revocation_endpoint", false, &m.revocation},
	} {
		text, ok := doc.String(endpoint.Path{f.name})
		switch {
		case ok && usableEndpoint(o.p.cfg, text):
			*f.into = text
		case ok, f.required:
			return o.p.client.Malformed(nil, "discovery document: "+f.name+" is missing, no URL, or not protected as the issuer is")
		}
	}
	m.authMethods = doc.Strings(endpoint.Path{"token_endpoint_auth_methods_supported"})
	iss, _ := doc.Lookup(endpoint.Path{"authorization_response_iss_parameter_supported"})
	m.responseIss = iss == true
	return nil
}

func (o *oidc) read(resp *endpoint.Response) (tokens, error) {
	doc, err := endpoint.ParseJSON(resp.Body)
	if err != nil {
		return tokens{}, o.p.client.Malformed(err, "token answer")
	}
	if err := o.p.client.ErrorIn(doc); err != nil {
		return tokens{}, err
	}
	t, err := readTokens(doc, tokenPaths{
		access: endpoint.Path{"access_token"}, refresh: endpoint.Path{"refresh_token"},
		scope: endpoint.Path{"scope"}, expiresIn: endpoint.Path{"expires_in"}, standard: true,
	}, resp.SentAt)
	if err != nil {
		return tokens{}, o.p.client.Malformed(err, "token answer")
	}
	return t, nil
}

// identify verifies the id token, which a redeemed code must come with, and
// completes name and e-mail from userinfo where the token lacks them.
func (o *oidc) identify(ctx context.Context, e endpoints, t *tokens, nonce string) (Identity, error) {
	if t.id.IsZero() {
		return Identity{}, o.p.identityInvalid("id_token", "its token answer has no id token")
	}
	jws, err := o.parseSigned(t.id.Reveal())
	if err != nil {
		return Identity{}, err
	}
	payload, err := o.verifySignature(ctx, jws)
	if err != nil {
		return Identity{}, err
	}
	c, err := o.readClaims(payload, nonce)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Subject: c.subject, Name: c.name, Email: c.email}
	u := o.p.cfg.UserInfo
	if u == nil {
		return o.complete(ctx, e, t.access, c, id)
	}
	doc, err := o.p.userInfo(ctx, u.URL, u.Method, u.Headers, t.access)
	if err != nil {
		return Identity{}, err
	}
	if err := o.sameSubject(doc, c.sub); err != nil {
		return Identity{}, err
	}
	shown := identityFields(doc, nil, u.NameFields, u.EmailFields)
	if shown.Name != "" {
		id.Name = shown.Name
	}
	if shown.Email != "" {
		id.Email = shown.Email
	}
	return id, nil
}

// complete asks the discovered userinfo endpoint for a name to show. Without one
// a login is no worse, so that only a wrong subject is an error.
func (o *oidc) complete(ctx context.Context, e endpoints, access secret.String, c *claims, id Identity) (Identity, error) {
	if e.userInfo == "" || (id.Name != "" && id.Email != "") {
		return id, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.p.timeout/2)
	defer cancel()
	doc, err := o.p.userInfo(ctx, e.userInfo, "GET", nil, access)
	if err != nil {
		o.p.log.WarnContext(ctx, "login goes on without userinfo", slog.String("provider", o.p.cfg.Name), fault.Attr(err))
		return id, nil
	}
	if err := o.sameSubject(doc, c.sub); err != nil {
		return Identity{}, err
	}
	shown := identityFields(doc, nil, []string{"name", "preferred_username"}, []string{"email"})
	if id.Name == "" {
		id.Name = shown.Name
	}
	if id.Email == "" {
		id.Email = shown.Email
	}
	return id, nil
}

// sameSubject is the check of OIDC Core, section 5.3.2: without it an answer
// could be about somebody else.
func (o *oidc) sameSubject(doc endpoint.Document, sub string) error {
	if got, _ := doc.ID(endpoint.Path{"sub"}); got != sub {
		return o.p.identityInvalid("userinfo_subject", "its userinfo answer is not about the person of the id token")
	}
	return nil
}

// confirm is OIDC Core, section 12.2: an id token may be missing; one that is
// there is about the same person. One that cannot be verified for lack of keys
// is not kept, but no reason to drop the refresh token that came with it, which
// can be the only good one. What it says must be right all the same: it came from
// the token endpoint itself (section 3.1.3.7, item 6).
func (o *oidc) confirm(ctx context.Context, _ endpoints, t *tokens, subject string) error {
	if t.id.IsZero() {
		return nil
	}
	jws, err := o.parseSigned(t.id.Reveal())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.p.timeout/2)
	defer cancel()
	payload, err := o.verifySignature(ctx, jws)
	switch {
	case errors.Is(err, errUnknownKey), err != nil && fault.ReasonOf(err) != reason.IdentityInvalid:
		o.p.log.WarnContext(ctx, "a refresh goes on without its id token, which cannot be verified",
			slog.String("provider", o.p.cfg.Name), fault.Attr(err))
		t.id = secret.String{}
		payload = jws.UnsafePayloadWithoutVerification()
	case err != nil:
		return err
	}
	c, err := o.readClaims(payload, "")
	switch {
	case err != nil:
		return err
	case c.subject != subject:
		return o.p.identityInvalid("subject_changed", "a refresh brought an id token of another person")
	}
	return nil
}

// readClaims checks what an id token says. Its errors are reason.IdentityInvalid.
func (o *oidc) readClaims(payload []byte, nonce string) (*claims, error) {
	c, err := readClaims(payload, claimRules{
		issuer: o.p.cfg.OIDC.Issuer, clientID: o.p.cfg.ClientID, subjectClaim: o.p.cfg.OIDC.SubjectClaim,
		nonce: nonce, now: o.p.now(),
	})
	if err != nil {
		return nil, o.invalid(err)
	}
	return c, nil
}

func (o *oidc) invalid(err error) error {
	if e, ok := err.(*claimError); ok { //nolint:errorlint // readClaims returns nothing else
		return o.p.identityInvalid(e.check, "its id token "+e.problem)
	}
	return fault.Wrap(fault.Internal, err, "").WithReason(reason.IdentityInvalid, reason.Provider, o.p.cfg.Name)
}
