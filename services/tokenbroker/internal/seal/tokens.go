package seal

import (
	"context"
	"encoding/json"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// Tokens are what a provider granted: the one kind of value that is sealed.
type Tokens struct {
	// AccessToken is never empty.
	AccessToken secret.String
	// RefreshToken is empty when the provider gave none.
	RefreshToken secret.String
	// IDToken is empty when the provider gave none.
	IDToken secret.String
}

// tokensJSON is the sealed form; secret.String would write "[redacted]".
type tokensJSON struct {
	AccessToken  string `json:"at"`
	RefreshToken string `json:"rt,omitempty"`
	IDToken      string `json:"it,omitempty"`
}

// SealTokens seals tokens for a place.
func (s *Sealer) SealTokens(ctx context.Context, t Tokens, at Place) (Sealed, error) {
	plaintext, err := json.Marshal(tokensJSON{
		AccessToken: t.AccessToken.Reveal(), RefreshToken: t.RefreshToken.Reveal(), IDToken: t.IDToken.Reveal(),
	})
	if err != nil {
		return Sealed{}, fault.New(fault.Internal, "tokens cannot be encoded") // the cause would quote them
	}
	defer clear(plaintext)
	return s.Seal(ctx, plaintext, at)
}

// OpenTokens opens tokens that were sealed for the place.
func (s *Sealer) OpenTokens(ctx context.Context, sealed Sealed, at Place) (Tokens, error) {
	plaintext, err := s.Open(ctx, sealed, at)
	if err != nil {
		return Tokens{}, err
	}
	defer clear(plaintext)
	var t tokensJSON
	if err := json.Unmarshal(plaintext, &t); err != nil || t.AccessToken == "" {
		return Tokens{}, invalid(nil)
	}
	return Tokens{
		AccessToken: secret.New(t.AccessToken), RefreshToken: secret.New(t.RefreshToken), IDToken: secret.New(t.IDToken),
	}, nil
}
