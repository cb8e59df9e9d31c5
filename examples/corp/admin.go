package corp

import (
	"net/http"
	"slices"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/internal/grants"
)

// Admin returns the admin endpoint: the switches of package faults, and
//
//	POST /revoke-all[?user=NAME]  end every grant (of one person)
//	POST /rotate-key              sign with a new key from now on
//	POST /links                   {"issuer","subject","username"}: who a foreign subject is
//
// It is for a loopback address of its own.
func (p *Provider) Admin() http.Handler {
	mux := faults.Admin(p.faults)
	mux.HandleFunc("POST /revoke-all", p.revokeAll)
	mux.HandleFunc("POST /rotate-key", p.rotateKey)
	mux.HandleFunc("POST /links", p.link)
	return faults.Guard(mux)
}

func (p *Provider) revokeAll(w http.ResponseWriter, r *http.Request) {
	match := func(grants.Grant) bool { return true }
	if name := r.URL.Query().Get("user"); name != "" {
		person, ok := p.storage.people.ByUsername(name)
		if !ok {
			http.Error(w, "there is no such person", http.StatusNotFound)
			return
		}
		match = func(g grants.Grant) bool { return g.User == person.Corp.ID }
	}
	revoked := 0
	err := p.storage.state.Update(func(st *state) error {
		revoked = st.Ledger.RevokeWhere(match)
		return nil
	})
	p.adminAnswer(w, r, map[string]int{"revoked": revoked}, err)
}

func (p *Provider) rotateKey(w http.ResponseWriter, r *http.Request) {
	key, err := newKey()
	if err == nil {
		err = p.storage.state.Update(func(st *state) error {
			st.Keys = slices.Insert(st.Keys, 0, key)
			st.Keys = st.Keys[:min(len(st.Keys), maxKeys)]
			return nil
		})
	}
	p.adminAnswer(w, r, map[string]string{"kid": key.ID}, err)
}

func (p *Provider) link(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Issuer   string `json:"issuer"`
		Subject  string `json:"subject"`
		Username string `json:"username"`
	}
	if err := faults.ReadJSON(w, r, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	person, ok := p.storage.people.ByUsername(in.Username)
	if !ok || in.Issuer == "" || in.Subject == "" {
		http.Error(w, "issuer, subject and the username of somebody here are required", http.StatusBadRequest)
		return
	}
	err := p.storage.state.Update(func(st *state) error {
		st.Links[linkKey(in.Issuer, in.Subject)] = person.Corp.ID
		return nil
	})
	p.adminAnswer(w, r, map[string]string{"linked": person.Username}, err)
}

func (p *Provider) adminAnswer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		p.log.ErrorContext(r.Context(), "admin request failed", "error", err)
		http.Error(w, "the state could not be changed", http.StatusInternalServerError)
		return
	}
	faults.Answer(w, v)
}
