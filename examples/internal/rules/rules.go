package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"chatelaine.dev/internal/secret"
)

// maxSize bounds a file, in bytes.
const maxSize = 1 << 20

// Load reads the file into a T; an empty path means builtIn.
func Load[T any](path string, builtIn []byte) (T, error) {
	var zero T
	if path == "" {
		return Parse[T](builtIn)
	}
	f, err := os.Open(path)
	if err != nil {
		return zero, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return zero, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxSize {
		return zero, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	v, err := Parse[T](data)
	if err != nil {
		return zero, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// Parse reads YAML (and so JSON). Unknown fields are errors.
func Parse[T any](data []byte) (T, error) {
	var v, zero T
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&v); err != nil {
		return zero, err
	}
	return v, nil
}

// Registration is what every provider knows of a confidential client. Redirect
// URIs match exactly.
type Registration struct {
	ID           string        `yaml:"id"`
	SecretRef    secret.Ref    `yaml:"secretRef"`
	Secret       secret.String `yaml:"-"`
	RedirectURIs []string      `yaml:"redirectURIs"`
}

// ResolveSecrets reads the clients' secrets by their references. All that cannot
// be read are reported at once.
func ResolveSecrets(from *secret.Resolver, clients []*Registration) error {
	var problems []error
	for _, c := range clients {
		s, err := from.Resolve(c.SecretRef)
		if err != nil {
			problems = append(problems, fmt.Errorf("client %s: %w", c.ID, err))
		}
		c.Secret = s
	}
	return errors.Join(problems...)
}

// SetRedirectURIs replaces the redirect URIs of the client with that id.
func SetRedirectURIs(clients []*Registration, id string, uris []string) error {
	i := slices.IndexFunc(clients, func(c *Registration) bool { return c.ID == id })
	if i < 0 {
		return fmt.Errorf("there is no client %q", id)
	}
	clients[i].RedirectURIs = uris
	return nil
}
