package upstream

import (
	"context"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// oauth2 is a provider of plain OAuth 2.0 (RFC 6749).
type oauth2 struct {
	p        *Provider
	paths    tokenPaths
	identity struct{ subject, name, email endpoint.Path }
}

func newOAuth2(p *Provider) *oauth2 {
	m := p.cfg.OAuth2.TokenResponse
	o := &oauth2{p: p, paths: tokenPaths{
		access: endpoint.ParsePath(m.AccessToken), refresh: endpoint.ParsePath(m.RefreshToken),
		scope: endpoint.ParsePath(m.Scope), expiresIn: endpoint.ParsePath(m.ExpiresIn),
		standard: m.AccessToken == "access_token",
	}}
	if id := p.cfg.OAuth2.Identity; id != nil {
		o.identity.subject = endpoint.ParsePath(id.Subject)
		o.identity.name = endpoint.ParsePath(id.Name)
		o.identity.email = endpoint.ParsePath(id.Email)
	}
	return o
}

func (o *oauth2) endpoints(context.Context) (endpoints, error) {
	e := endpoints{
		authorization: o.p.cfg.OAuth2.AuthorizationEndpoint,
		token:         o.p.cfg.OAuth2.TokenEndpoint,
		revocation:    o.p.cfg.OAuth2.RevocationEndpoint,
	}
	if o.p.cfg.UserInfo != nil {
		e.userInfo = o.p.cfg.UserInfo.URL
	}
	return e, nil
}

func (o *oauth2) read(resp *endpoint.Response) (tokens, error) {
	doc, err := endpoint.Parse(resp.ContentType, resp.Body)
	if err != nil {
		return tokens{}, o.p.client.Malformed(err, "token answer")
	}
	if err := o.p.client.ErrorIn(doc); err != nil { // GitHub: HTTP 200 and an error
		return tokens{}, err
	}
	t, err := readTokens(doc, o.paths, resp.SentAt)
	if err != nil {
		return tokens{}, o.p.client.Malformed(err, "token answer")
	}
	t.id = secret.String{} // nobody verified it
	return t, nil
}

func (o *oauth2) identify(ctx context.Context, e endpoints, t *tokens, _ string) (Identity, error) {
	switch {
	case o.p.cfg.OAuth2.Identity != nil:
		return o.fromToken(t)
	case o.p.cfg.UserInfo != nil:
		u := o.p.cfg.UserInfo
		doc, err := o.p.userInfo(ctx, u.URL, u.Method, u.Headers, t.access)
		if err != nil {
			return Identity{}, err
		}
		id := identityFields(doc, u.SubjectFields, u.NameFields, u.EmailFields)
		if !subjectText(id.Subject) {
			return Identity{}, o.p.identityInvalid("subject", "its userinfo answer has no usable subject")
		}
		return id, nil
	}
	return Identity{}, nil // configured so: see Identity.Subject
}

func (o *oauth2) fromToken(t *tokens) (Identity, error) {
	subject, ok := t.doc.ID(o.identity.subject)
	if !ok || !subjectText(subject) {
		return Identity{}, o.p.identityInvalid("subject", "its token answer has no usable subject at identityFromToken.subjectPath")
	}
	name, _ := t.doc.ID(o.identity.name)
	email, _ := t.doc.ID(o.identity.email)
	return Identity{Subject: subject, Name: display(name), Email: display(email)}, nil
}

// confirm compares the subject where the answer names one. Userinfo is not
// asked again: a refresh token stays with the account that it was issued for.
func (o *oauth2) confirm(_ context.Context, _ endpoints, t *tokens, subject string) error {
	if o.p.cfg.OAuth2.Identity == nil {
		return nil
	}
	if now, ok := t.doc.ID(o.identity.subject); ok && now != subject {
		return o.p.identityInvalid("subject_changed", "a refresh brought tokens of another account")
	}
	return nil
}
