package app_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// skewed returns a database whose clock is so much ahead of ours: as seen from there,
// this replica's clock is behind.
func skewed(t *testing.T, ahead time.Duration) *pgxpool.Pool {
	t.Helper()
	u := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), u.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, statement := range []string{
		`CREATE SCHEMA clock`,
		`CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now() + interval ''` + ahead.String() + `'''`,
		// Before pg_catalog, for the defaults of columns as well.
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public', current_database()); END $$`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Migrations().Up(t.Context(), u, nil); err != nil {
		t.Fatal(fault.Detail(err))
	}
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: u, Application: "skewed", MaxConns: 10})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestAReplicaWhoseClockIsWrongIssuesWhatTheOthersDo(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{
		"a little behind": 20 * time.Second, "a little ahead": -20 * time.Second,
		"far behind": 30 * time.Minute, "far ahead": -30 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, skewed(t, ahead))
			h.replica(h.pool)
			c := h.client()
			code := c.login(h.browser())
			first := c.redeem(code)
			if first.status != http.StatusOK {
				t.Fatalf("redemption: %+v", first)
			}
			second := c.refresh(first.RefreshToken)
			repeated := c.refresh(first.RefreshToken)
			if second.status != http.StatusOK || repeated.RefreshToken != second.RefreshToken || repeated.AccessToken != second.AccessToken {
				t.Fatalf("refreshes: %+v, %+v", second, repeated)
			}
			for _, got := range []tokens{first, second, repeated} {
				if got.ExpiresIn < 3590 || got.ExpiresIn > 3600 {
					t.Errorf("expires_in is %d, want an hour", got.ExpiresIn)
				}
				_, claims := h.verified(got.AccessToken)
				issued, expires := claims["iat"].(float64), claims["exp"].(float64)
				if off := time.Since(time.Unix(int64(issued), 0)) + ahead; off < -time.Second || off > 30*time.Second || expires-issued != 3600 {
					t.Errorf("issued %v off the database's clock, for %v s", off, expires-issued)
				}
				wantStatus(t, c.post("/oauth/introspect", url.Values{"token": {got.AccessToken}}), http.StatusOK, `"active":true`)
			}
			h.subjectToken(ahead)
			if n := h.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE expires_at BETWEEN now() + interval '1 hour' AND now() + interval '400 days'`); n != 2 {
				t.Errorf("%d refresh tokens live as long as they should, want 2", n)
			}
			swept, err := store.New(h.pool).Sweep(t.Context(), store.SweepPolicy{EndedGrants: time.Hour, UnusedClients: time.Hour, IdleClients: time.Hour, Grace: time.Minute})
			h.must(err)
			if swept != (store.Swept{}) {
				t.Errorf("a login of now was swept: %+v", swept)
			}
			if got := c.refresh(second.RefreshToken); got.status != http.StatusOK {
				t.Errorf("the next refresh: %+v", got)
			}
		})
	}
}

// subjectToken checks that a subject token is of the database's now.
func (h *house) subjectToken(ahead time.Duration) {
	h.t.Helper()
	var session, user string
	h.must(h.pool.QueryRow(h.t.Context(), `SELECT session_id, user_id FROM authserver.grants`).Scan(&session, &user))
	minted, err := h.server.Subject.MintSubjectToken(h.t.Context(), &authserverv1.MintSubjectTokenRequest{
		SessionId: session, UserId: user, Audience: "https://sts.example/token",
	})
	h.must(err)
	_, claims := h.verified(minted.GetToken())
	if left := time.Until(time.Unix(int64(claims["exp"].(float64)), 0)) - ahead; left < 90*time.Second || left > 2*time.Minute+time.Second {
		h.t.Errorf("a subject token lives for %v, want two minutes", left)
	}
}

func TestACodeIsTooOldByTheDatabasesClockAlone(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-30 * time.Minute, 30 * time.Minute} {
		h := newHouse(t, skewed(t, ahead))
		h.replica(h.pool)
		c := h.client()
		code := c.login(h.browser())
		h.exec(`UPDATE authserver.authorization_codes SET expires_at = now() - interval '1 second'`)
		if got := c.redeem(code); got.Error != "invalid_grant" {
			t.Errorf("%v: %+v", ahead, got)
		}
	}
}
