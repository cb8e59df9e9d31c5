package octohub

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/examples/internal/grants"
	"chatelaine.dev/examples/people"
)

const (
	defaultPerPage = 30
	maxPerPage     = 100
)

// caller returns whose token the request bears, and with which scopes;
// otherwise it has answered 401.
func (h *Host) caller(w http.ResponseWriter, r *http.Request) (people.Person, []string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "token") {
		var a grants.Access
		var g grants.Grant
		var err error
		h.state.View(func(st *state) { a, g, err = st.Ledger.LookupAccess(grants.Key(token), time.Now()) })
		id, convErr := strconv.ParseInt(g.User, 10, 64)
		if p, known := h.people.ByOctohubID(id); err == nil && convErr == nil && known {
			w.Header().Set("X-OAuth-Scopes", strings.Join(a.Scopes, ", "))
			return p, a.Scopes, true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="octohub", error="invalid_token"`)
		answer(w, http.StatusUnauthorized, map[string]string{"message": "Bad credentials"})
		return people.Person{}, nil, false
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="octohub"`)
	answer(w, http.StatusUnauthorized, map[string]string{"message": "Requires authentication"})
	return people.Person{}, nil, false
}

// User is the answer of GET /user.
type User struct {
	ID          int64  `json:"id"`
	Login       string `json:"login"`
	Name        string `json:"name"`
	Email       string `json:"email,omitempty"`
	Type        string `json:"type"`
	PublicRepos int    `json:"public_repos"`
}

func (h *Host) user(w http.ResponseWriter, r *http.Request) {
	p, scopes, ok := h.caller(w, r)
	if !ok {
		return
	}
	u := User{ID: p.Octohub.ID, Login: p.Octohub.Login, Name: p.Name, Type: "User"}
	if slices.Contains(scopes, "read:user") || slices.Contains(scopes, "user:email") {
		u.Email = p.Email
	}
	for _, repo := range p.Octohub.Repositories {
		if !repo.Private {
			u.PublicRepos++
		}
	}
	answer(w, http.StatusOK, u)
}

// Repository is an element of the answer of GET /user/repos.
type Repository struct {
	Name        string `json:"name"`
	FullName    string `json:"full_name"`
	Description string `json:"description"`
	Language    string `json:"language"`
	Private     bool   `json:"private"`
}

// repositories lists the person's own; private ones need the scope repo.
func (h *Host) repositories(w http.ResponseWriter, r *http.Request) {
	p, scopes, ok := h.caller(w, r)
	if !ok {
		return
	}
	perPage, err1 := positive(r.URL.Query().Get("per_page"), defaultPerPage, maxPerPage)
	pageNo, err2 := positive(r.URL.Query().Get("page"), 1, 1<<20)
	if err := cmp.Or(err1, err2); err != nil {
		answer(w, http.StatusUnprocessableEntity, map[string]string{"message": "page and per_page must be positive numbers"})
		return
	}
	all := []Repository{}
	for _, repo := range p.Octohub.Repositories {
		if !repo.Private || slices.Contains(scopes, "repo") {
			all = append(all, Repository{repo.Name, p.Octohub.Login + "/" + repo.Name, repo.Description, repo.Language, repo.Private})
		}
	}
	from := min((pageNo-1)*perPage, len(all))
	answer(w, http.StatusOK, all[from:min(from+perPage, len(all))])
}

// positive reads a number of at least 1; more than most counts as most.
func positive(text string, otherwise, most int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("octohub: %q is no positive number", text)
	}
	return min(n, most), nil
}
