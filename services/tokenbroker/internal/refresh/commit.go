package refresh

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// commit stores what was granted and tries for as long as it may: it can be the
// only valid token. Of a grant that lost against a newer version the refresh token
// is kept where that version needs it; one for a connection that is gone is revoked.
func (r *Refresher) commit(ctx context.Context, c *store.Connection, old seal.Tokens, g *upstream.Grant) (bool, error) {
	tokens := seal.Tokens{AccessToken: g.AccessToken, RefreshToken: g.RefreshToken, IDToken: g.IDToken}
	if tokens.RefreshToken.IsZero() {
		tokens.RefreshToken = old.RefreshToken
	}
	if tokens.IDToken.IsZero() {
		tokens.IDToken = old.IDToken
	}
	r.noteScopes(ctx, c, g.Scopes)
	next, committed, err := r.put(ctx, c, tokens, store.Renewal{Grant: store.Grant{Scopes: g.Scopes}, Validity: Validity(g)})
	if committed || err != nil {
		return committed, err
	}
	for {
		now, err := r.cfg.Reader.Connection(ctx, c.ID)
		switch {
		case fault.KindOf(err) == fault.NotFound || (err == nil && now.Status == store.ConnectionDisconnected):
			if err := r.giveUp(ctx, next); err != nil {
				return false, err
			}
			return false, connectionRequired(c.Provider)
		case err != nil:
			return false, err
		}
		if done, err := r.handOver(ctx, now, old.RefreshToken, tokens.RefreshToken); done || err != nil {
			return err == nil, err
		}
	}
}

// noteScopes says that a provider took something away: backends will refuse calls
// that they took before. The scopes themselves are the connection's, for operators.
func (r *Refresher) noteScopes(ctx context.Context, c *store.Connection, granted []string) {
	lost := slices.DeleteFunc(slices.Clone(c.Scopes), func(s string) bool { return slices.Contains(granted, s) })
	if len(lost) > 0 {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "a renewal brought fewer scopes than the connection had",
			slog.String("connection_id", c.ID), slog.String("provider", c.Provider), slog.Int("lost", len(lost)))
	}
}

// put makes tokens the version after c, with what renewal says of them, and returns
// what it tried to make.
func (r *Refresher) put(ctx context.Context, c *store.Connection, tokens seal.Tokens, renewal store.Renewal) (next *store.Connection, committed bool, err error) {
	made := *c
	made.Version++
	made.Grant, made.Refreshable = renewal.Grant, true
	if made.Sealed, err = r.cfg.Sealer.SealTokens(ctx, tokens, made.Place()); err != nil {
		return nil, false, err
	}
	renewal.ConnectionID, renewal.PresentedVersion, renewal.Grant = c.ID, c.Version, made.Grant
	renewal.Record = record(ctx, c, audit.ConnectionRefreshed, audit.Success)
	if committed, err = r.keepTrying(ctx, renewal); committed {
		r.finished(ctx, renewal.Record)
	}
	return &made, committed, err
}

// handOver gives a refresh token to the version that a login has made since: one
// that kept the token which is spent by now, or that has none because it would have
// had to keep it. What the login itself brought stays. done is false when that
// version has moved too.
func (r *Refresher) handOver(ctx context.Context, now *store.Connection, spent, granted secret.String) (done bool, err error) {
	tokens, err := r.cfg.Sealer.OpenTokens(ctx, now.Sealed, now.Place())
	if err != nil {
		return false, err
	}
	// Without a subject, the login may have been that of another account.
	needed := tokens.RefreshToken.Equal(spent) || tokens.RefreshToken.IsZero() && now.Subject != ""
	if !needed || tokens.RefreshToken.Equal(granted) {
		return true, nil
	}
	tokens.RefreshToken = granted
	// Doubted: who knows what was presented meanwhile.
	_, done, err = r.put(ctx, now, tokens, store.Renewal{Grant: now.Grant, SameToken: true, Doubted: true})
	return done, err
}

func (r *Refresher) keepTrying(ctx context.Context, renewal store.Renewal) (committed bool, err error) {
	err = r.persist(ctx, renewal.ConnectionID, func() error {
		committed, err = r.cfg.Leases.CommitRenewal(ctx, renewal)
		return err
	})
	return committed, err
}

// giveUpGrant has tokens revoked that a renewal brought and that may not be used.
func (r *Refresher) giveUpGrant(ctx context.Context, c *store.Connection, g *upstream.Grant) error {
	unfit := *c
	unfit.Version++
	var err error
	unfit.Sealed, err = r.cfg.Sealer.SealTokens(ctx, seal.Tokens{AccessToken: g.AccessToken, RefreshToken: g.RefreshToken}, unfit.Place())
	if err != nil {
		return err
	}
	return r.giveUp(ctx, &unfit)
}

// giveUp has tokens revoked that no connection has: c is what they would have been.
func (r *Refresher) giveUp(ctx context.Context, c *store.Connection) error {
	return r.persist(ctx, c.ID, func() error { return r.cfg.Leases.QueueRevocation(ctx, store.OfConnection(c)) })
}

// persist tries for as long as ctx lasts to write what is nowhere else.
func (r *Refresher) persist(ctx context.Context, connectionID string, write func() error) error {
	for wait := pollEvery; ; wait = min(2*wait, 5*time.Second) {
		err := write()
		if err == nil {
			return nil
		}
		r.cfg.Logger.LogAttrs(ctx, slog.LevelError, "new tokens could not be stored yet",
			slog.String("connection_id", connectionID), fault.Attr(err))
		if pause(ctx, wait) != nil {
			return err
		}
	}
}
