package app

import (
	"crypto/hkdf"
	"crypto/sha256"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/authserver/internal/keys"
)

const (
	minHMACBytes = 32
	maxHMACBytes = 1024

	makeSigningKey = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
)

// signingKeys reads the keys that the resources name, newest first.
func signingKeys(a *config.AuthServer, secrets *secret.Resolver) ([]*keys.Key, error) {
	if len(a.SigningKeys) == 0 {
		return nil, fault.New(fault.Invalid, "authServerConfig.signingKeySecretRefs names no key: access tokens cannot be signed. "+
			"Make one with `"+makeSigningKey+"` and name its secret there")
	}
	list := make([]*keys.Key, 0, len(a.SigningKeys))
	for _, ref := range a.SigningKeys {
		text, err := secrets.Resolve(ref)
		if err != nil {
			return nil, err
		}
		key, err := keys.Parse(text)
		if err != nil {
			return nil, fault.Newf(fault.Invalid, "signing key %s: %s. Make one with `%s`", ref, err, makeSigningKey)
		}
		list = append(list, key)
	}
	return list, nil
}

// hmacSecrets reads the secrets that the resources name, newest first.
func hmacSecrets(a *config.AuthServer, secrets *secret.Resolver) ([]secret.Bytes, error) {
	if len(a.HMACSecrets) == 0 {
		return nil, fault.New(fault.Invalid, "authServerConfig.hmacSecretRefs names no secret: codes and refresh tokens cannot be made. "+
			"Make one with `openssl rand -base64 32` and name its secret there")
	}
	list := make([]secret.Bytes, 0, len(a.HMACSecrets))
	for _, ref := range a.HMACSecrets {
		key, err := secrets.ResolveKey(ref, minHMACBytes, maxHMACBytes)
		if err != nil {
			return nil, err
		}
		list = append(list, key)
	}
	return list, nil
}

// derive makes a 32-byte key for one purpose from each secret (RFC 5869), so that no
// secret serves two of them and all of its bytes count.
func derive(secrets []secret.Bytes, purpose string) ([]secret.Bytes, error) {
	list := make([]secret.Bytes, 0, len(secrets))
	for _, s := range secrets {
		key, err := hkdf.Key(sha256.New, s.Reveal(), nil, "chatelaine.dev/authserver/v1 "+purpose, keyring.KeySize)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "cannot derive a key")
		}
		list = append(list, secret.NewBytes(key))
	}
	return list, nil
}

// ring derives a key ring for one purpose.
func ring(secrets []secret.Bytes, purpose string) (*keyring.Ring, error) {
	list, err := derive(secrets, purpose)
	if err != nil {
		return nil, err
	}
	return keyring.New(list...)
}
