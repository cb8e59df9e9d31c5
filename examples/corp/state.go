package corp

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"chatelaine.dev/examples/internal/grants"
)

const (
	keyBits = 2048
	// maxKeys is how many signing keys are kept: the newest signs, all verify.
	maxKeys = 5
)

// state is all that survives a restart. Tokens are in it as digests only; the
// keys are what makes the file worth protecting (mode 0600).
type state struct {
	// Keys sign tokens, newest first.
	Keys []storedKey `json:"keys"`
	// CryptoKey seals the opaque tokens and codes (AES-256-GCM).
	CryptoKey []byte `json:"cryptoKey"`
	// Requests are authorization requests by id.
	Requests map[string]authRequest `json:"requests"`
	Ledger   grants.Ledger          `json:"ledger"`
	// Links are foreign subjects (by linkKey) and the corp id that each stands for.
	Links map[string]string `json:"links"`
}

func newState() (*state, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	s := &state{
		Keys:      []storedKey{key},
		CryptoKey: make([]byte, 32),
		Requests:  map[string]authRequest{},
		Ledger:    grants.New(),
		Links:     map[string]string{},
	}
	rand.Read(s.CryptoKey)
	return s, nil
}

// prune forgets what can no longer be used.
func (s *state) prune(now time.Time) {
	for id, r := range s.Requests {
		if !now.Before(r.Expires) {
			delete(s.Requests, id)
		}
	}
	s.Ledger.Prune(now)
}

func linkKey(issuer, subject string) string { return issuer + "\x00" + subject }

// storedKey is an RSA key in PKCS #8 form.
type storedKey struct {
	ID  string `json:"id"`
	DER []byte `json:"der"`
}

func newKey() (storedKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return storedKey{}, fmt.Errorf("corp: make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return storedKey{}, fmt.Errorf("corp: make a signing key: %w", err)
	}
	return storedKey{ID: rand.Text(), DER: der}, nil
}

func (k storedKey) open() (*rsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(k.DER)
	if err != nil {
		return nil, fmt.Errorf("corp: signing key %s: %w", k.ID, err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("corp: signing key %s is no RSA key", k.ID)
	}
	return private, nil
}

// signingKey implements op.SigningKey.
type signingKey struct {
	id  string
	key *rsa.PrivateKey
}

func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signingKey) Key() any                                    { return k.key }
func (k signingKey) ID() string                                  { return k.id }

// publicKey implements op.Key.
type publicKey struct {
	id  string
	key *rsa.PublicKey
}

func (k publicKey) ID() string                         { return k.id }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.key }

// authRequest is one authorization request, from its arrival until its code was
// redeemed and cannot be replayed any more. It implements op.AuthRequest.
type authRequest struct {
	ID            string    `json:"id"`
	Client        string    `json:"client"`
	RedirectURI   string    `json:"redirectURI"`
	State         string    `json:"state"`
	Nonce         string    `json:"nonce"`
	Scopes        []string  `json:"scopes"`
	CodeChallenge string    `json:"codeChallenge"`
	LoginHint     string    `json:"loginHint"`
	Expires       time.Time `json:"expires"`

	// Browser is the id of the browser that brought the request: it alone may go on.
	Browser  string    `json:"browser"`
	Failures int       `json:"failures"`
	User     string    `json:"user"`
	AuthTime time.Time `json:"authTime,omitzero"`
	// CodeKey is the digest of the code, once there is one.
	CodeKey string `json:"codeKey"`
	// Grant is what the code was redeemed for.
	Grant string `json:"grant"`
}

func (r *authRequest) GetID() string                      { return r.ID }
func (r *authRequest) GetACR() string                     { return "" }
func (r *authRequest) GetAMR() []string                   { return []string{"pwd"} }
func (r *authRequest) GetAudience() []string              { return []string{r.Client} }
func (r *authRequest) GetAuthTime() time.Time             { return r.AuthTime }
func (r *authRequest) GetClientID() string                { return r.Client }
func (r *authRequest) GetNonce() string                   { return r.Nonce }
func (r *authRequest) GetRedirectURI() string             { return r.RedirectURI }
func (r *authRequest) GetResponseType() oidc.ResponseType { return oidc.ResponseTypeCode }
func (r *authRequest) GetResponseMode() oidc.ResponseMode { return oidc.ResponseModeQuery }
func (r *authRequest) GetScopes() []string                { return r.Scopes }
func (r *authRequest) GetState() string                   { return r.State }
func (r *authRequest) GetSubject() string                 { return r.User }
func (r *authRequest) Done() bool                         { return r.User != "" }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: oidc.CodeChallengeMethodS256}
}

// refreshRequest implements op.RefreshTokenRequest.
type refreshRequest struct {
	grant  grants.Grant
	scopes []string
}

func (r *refreshRequest) GetAMR() []string            { return []string{"pwd"} }
func (r *refreshRequest) GetAudience() []string       { return []string{r.grant.Client} }
func (r *refreshRequest) GetAuthTime() time.Time      { return r.grant.AuthTime }
func (r *refreshRequest) GetClientID() string         { return r.grant.Client }
func (r *refreshRequest) GetScopes() []string         { return r.scopes }
func (r *refreshRequest) GetSubject() string          { return r.grant.User }
func (r *refreshRequest) SetCurrentScopes(s []string) { r.scopes = s }
