package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
)

// Client is a registered OAuth client.
type Client struct {
	ID         string
	Name       string
	URI        string // of its home page; may be empty
	AuthMethod string // token_endpoint_auth_method: none, client_secret_basic, client_secret_post
	SecretHash []byte // Digest of the secret; nil for public clients
	// RedirectURIs as registered.
	RedirectURIs []string
	GrantTypes   []string
	// Scopes that it may ask for.
	Scopes    []string
	CreatedAt time.Time
}

// Public reports whether the client has no secret.
func (c *Client) Public() bool { return c.AuthMethod == "none" }

const clientColumns = `id, name, uri, auth_method, secret_hash, redirect_uris, grant_types, scopes, created_at`

func scanClient(row pgx.CollectableRow) (Client, error) {
	var c Client
	err := row.Scan(&c.ID, &c.Name, &c.URI, &c.AuthMethod, &c.SecretHash, &c.RedirectURIs, &c.GrantTypes, &c.Scopes, &c.CreatedAt)
	return c, err
}

// CreateClient stores a new registration and sets its CreatedAt.
func (s *Store) CreateClient(ctx context.Context, c *Client) error {
	err := s.db(ctx).QueryRow(ctx, `
		INSERT INTO authserver.clients (id, name, uri, auth_method, secret_hash, redirect_uris, grant_types, scopes)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		RETURNING created_at`,
		c.ID, c.Name, c.URI, c.AuthMethod, c.SecretHash, c.RedirectURIs, c.GrantTypes, c.Scopes).Scan(&c.CreatedAt)
	return postgres.Fault(err)
}

// Client returns a registration, or NotFound.
func (s *Store) Client(ctx context.Context, id string) (*Client, error) {
	if !storable(id) {
		return nil, fault.New(fault.NotFound, "")
	}
	rows, err := s.db(ctx).Query(ctx, `SELECT `+clientColumns+` FROM authserver.clients WHERE id = $1`, id)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanClient)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	return &c, nil
}
