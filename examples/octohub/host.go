package octohub

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/internal/grants"
	"chatelaine.dev/examples/internal/page"
	"chatelaine.dev/examples/internal/snapshot"
	"chatelaine.dev/examples/people"
)

// maxBody bounds what the host reads of a request, in bytes.
const maxBody = 64 << 10

// Host is a running code host. Use New to make one.
type Host struct {
	clients   map[string]Client
	people    *people.Directory
	lifetimes Lifetimes
	state     *snapshot.Store[state]
	pages     *page.Renderer
	cookies   page.Cookies
	faults    *faults.Provider
	log       *slog.Logger
}

// state is all that survives a restart. Sessions, codes and tokens are in it as
// digests only.
type state struct {
	// Sessions are signed-in browsers by their id.
	Sessions map[string]session `json:"sessions"`
	// Codes are authorization codes by key.
	Codes  map[string]code `json:"codes"`
	Ledger grants.Ledger   `json:"ledger"`
}

type session struct {
	User    int64     `json:"user"`
	Expires time.Time `json:"expires"`
}

type code struct {
	Client      string    `json:"client"`
	User        int64     `json:"user"`
	RedirectURI string    `json:"redirectURI"`
	Scopes      []string  `json:"scopes"`
	Challenge   string    `json:"challenge"`
	Expires     time.Time `json:"expires"`
	// Grant is what the code was redeemed for.
	Grant string `json:"grant"`
}

func newState() (*state, error) {
	return &state{Sessions: map[string]session{}, Codes: map[string]code{}, Ledger: grants.New()}, nil
}

// prune forgets what can no longer be used.
func (s *state) prune(now time.Time) {
	for id, ses := range s.Sessions {
		if !now.Before(ses.Expires) {
			delete(s.Sessions, id)
		}
	}
	for key, c := range s.Codes {
		if !now.Before(c.Expires) {
			delete(s.Codes, key)
		}
	}
	s.Ledger.Prune(now)
}

// New makes a Host, with its state from cfg.StateFile.
func New(cfg Config, log *slog.Logger) (*Host, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	st, err := snapshot.Open(cfg.StateFile, newState)
	if err != nil {
		return nil, err
	}
	h := &Host{
		clients:   make(map[string]Client, len(cfg.Rules.Clients)),
		people:    cfg.People,
		lifetimes: cfg.Lifetimes,
		state:     st,
		log:       log,
		// GitHub reports OAuth errors with status 200.
		faults: faults.NewProvider(http.StatusOK, func(status int, body []byte) bool {
			return status == http.StatusOK && bytes.Contains(body, []byte("access_token"))
		}),
	}
	for _, c := range cfg.Rules.Clients {
		h.clients[c.ID] = c
	}
	if h.pages, err = page.NewRenderer("octohub"); err != nil {
		return nil, err
	}
	h.cookies, err = page.NewCookies("octohub", cfg.BaseURL)
	return h, err
}

// Handler returns the host's public endpoints.
func (h *Host) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })

	sameSite := http.NewCrossOriginProtection()
	mux.HandleFunc("GET "+loginPath, h.showLogin)
	mux.Handle("POST "+loginPath, sameSite.Handler(bounded(h.login)))
	mux.HandleFunc("GET "+authorizePath, h.showAuthorize)
	mux.Handle("POST "+authorizePath, sameSite.Handler(bounded(h.authorize)))

	mux.Handle("POST /login/oauth/access_token", bounded(h.tokenEndpoint))
	mux.Handle("POST /login/oauth/revoke", bounded(h.revoke))
	mux.Handle("DELETE /applications/{client}/token", bounded(h.deleteToken))
	mux.Handle("DELETE /applications/{client}/grant", bounded(h.deleteGrant))

	mux.HandleFunc("GET /user", h.user)
	mux.HandleFunc("GET /user/repos", h.repositories)
	return mux
}

// bounded limits the request's body.
func bounded(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next(w, r)
	})
}

// client returns the client of that id and secret, in constant time.
func (h *Host) client(id, clientSecret string) (Client, bool) {
	c, known := h.clients[id]
	want, got := sha256.Sum256([]byte(c.Secret.Reveal())), sha256.Sum256([]byte(clientSecret))
	return c, subtle.ConstantTimeCompare(want[:], got[:]) == 1 && known
}

// basicClient authenticates the client by Basic alone.
func (h *Host) basicClient(r *http.Request) (Client, bool) {
	id, clientSecret, _ := r.BasicAuth()
	return h.client(id, clientSecret)
}

// failed answers what is the host's own fault; the cause goes to the log.
func (h *Host) failed(w http.ResponseWriter, r *http.Request, err error) {
	h.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
	http.Error(w, "octohub has a problem", http.StatusInternalServerError)
}

// Admin returns the admin endpoint: the switches of package faults, and
//
//	POST /revoke-all[?user=NAME]  end every grant (of one person)
//
// It is for a loopback address of its own.
func (h *Host) Admin() http.Handler {
	mux := faults.Admin(h.faults)
	mux.HandleFunc("POST /revoke-all", func(w http.ResponseWriter, r *http.Request) {
		match := func(grants.Grant) bool { return true }
		if name := r.URL.Query().Get("user"); name != "" {
			p, ok := h.people.ByUsername(name)
			if !ok {
				http.Error(w, "there is no such person", http.StatusNotFound)
				return
			}
			match = func(g grants.Grant) bool { return g.User == userKey(p.Octohub.ID) }
		}
		revoked := 0
		err := h.state.Update(func(st *state) error {
			revoked = st.Ledger.RevokeWhere(match)
			return nil
		})
		if err != nil {
			h.failed(w, r, err)
			return
		}
		faults.Answer(w, map[string]int{"revoked": revoked})
	})
	return faults.Guard(mux)
}

func userKey(id int64) string { return strconv.FormatInt(id, 10) }

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}
