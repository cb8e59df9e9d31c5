package config

import "chatelaine.dev/internal/secret"

// clientAuth is how a client authenticates to a token endpoint, as it is written.
type clientAuth struct {
	method      string
	secret, key *SecretKeyRef
	keyID       string
	audience    string
}

// clientAuth checks that a client authenticates in one way, and has what it takes.
func (c *checker) clientAuth(d *document, path string, a clientAuth) {
	c.secret(d, path+".clientSecretRef", a.secret)
	c.secret(d, path+".clientKeyRef", a.key)
	switch {
	case a.key != nil && a.secret != nil:
		c.report.errorf(d, path+".clientKeyRef", "is set beside clientSecretRef: a client authenticates in one way; remove one of them")
	case a.method == AuthMethodPrivateKeyJWT && a.key == nil:
		c.report.errorf(d, path+".clientAuthMethod", "private_key_jwt needs a clientKeyRef")
	case a.method != "" && a.method != AuthMethodPrivateKeyJWT && a.key != nil:
		c.report.errorf(d, path+".clientAuthMethod", "%s sends a secret, but there is a clientKeyRef: remove one of them", a.method)
	case a.method != "" && a.method != AuthMethodPrivateKeyJWT && a.secret == nil:
		c.report.errorf(d, path+".clientAuthMethod", "%s needs a clientSecretRef", a.method)
	}
	if a.key == nil && a.keyID != "" {
		c.report.errorf(d, path+".clientKeyId", "is of no use without clientKeyRef")
	}
	if a.key == nil && a.audience != "" {
		c.report.errorf(d, path+".clientAssertionAudience", "is of no use without clientKeyRef")
	}
}

// clientOf checks that who authenticates says who it is.
func (c *checker) clientOf(d *document, path, id string, secretRef, keyRef *SecretKeyRef) {
	switch {
	case id != "" || c.report.reported(d, path):
	case secretRef != nil:
		c.report.errorf(d, path, "is required with clientSecretRef")
	case keyRef != nil:
		c.report.errorf(d, path, "is required with clientKeyRef")
	}
}

// clientKey resolves a key, nil where there is none.
func clientKey(ref *SecretKeyRef, id, audience string) *ClientKey {
	if ref == nil {
		return nil
	}
	return &ClientKey{Key: secret.Ref(*ref), ID: id, Audience: audience}
}

// authMethod returns the registered name of a method, empty where none is chosen.
func authMethod(short string, key *ClientKey) string {
	switch {
	case key != nil:
		return AuthMethodPrivateKeyJWT
	case short == "basic":
		return AuthMethodBasic
	case short == "post":
		return AuthMethodPost
	}
	return ""
}
