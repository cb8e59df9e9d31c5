package octohub

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"chatelaine.dev/examples/internal/grants"
	"chatelaine.dev/examples/internal/page"
	"chatelaine.dev/examples/people"
)

const (
	loginPath     = "/login"
	authorizePath = "/login/oauth/authorize"
	// maxPending bounds codes and sessions each.
	maxPending = 10_000
	maxParam   = 2048
)

// scopeText says what a scope allows. Scopes that mean nothing here are dropped
// from requests, as GitHub does.
func scopeText(scope string) (text string, known bool) {
	switch scope {
	case "repo":
		return "Read your repositories, private ones too", true
	case "read:user":
		return "Read your profile", true
	case "user:email":
		return "Read your e-mail address", true
	}
	return "", false
}

// params are the parameters of an authorization request that was found to be
// well-formed. Its form carries them along.
type params struct {
	client                     Client
	redirectURI, state, scope  string
	challenge, challengeMethod string
	login                      string
}

// parseParams checks client and redirect URI before anything else: an error of
// these is shown to the person, all others go back to the client. The problem is
// "" when the request is good.
func (h *Host) parseParams(v url.Values) (p params, problem string, redirectable bool) {
	for _, values := range v {
		if len(values) > 1 || len(values[0]) > maxParam {
			return p, "A parameter is sent twice or is too long.", false
		}
	}
	c, ok := h.clients[v.Get("client_id")]
	if !ok {
		return p, "This application is not known here.", false
	}
	p = params{
		client: c, redirectURI: v.Get("redirect_uri"), state: v.Get("state"), scope: v.Get("scope"),
		challenge: v.Get("code_challenge"), challengeMethod: v.Get("code_challenge_method"), login: v.Get("login"),
	}
	if p.redirectURI == "" {
		p.redirectURI = c.RedirectURIs[0]
	}
	if !slices.Contains(c.RedirectURIs, p.redirectURI) {
		return p, "The address to return to is not one of this application's.", false
	}
	switch {
	case v.Get("response_type") != "" && v.Get("response_type") != "code":
		return p, "unsupported_response_type", true
	case (p.challenge != "" || p.challengeMethod != "") && (p.challengeMethod != "S256" || len(p.challenge) != 43):
		return p, "invalid_request", true // RFC 7636 section 4.4.1; S256 alone
	}
	return p, "", true
}

func (p params) scopes() []string {
	var out []string
	for _, s := range strings.FieldsFunc(p.scope, func(r rune) bool { return r == ' ' || r == ',' }) {
		if _, ok := scopeText(s); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// fields are what the form carries, and what its token covers.
func (p params) fields() []page.Field {
	return []page.Field{
		{Name: "client_id", Value: p.client.ID},
		{Name: "redirect_uri", Value: p.redirectURI},
		{Name: "state", Value: p.state},
		{Name: "scope", Value: p.scope},
		{Name: "code_challenge", Value: p.challenge},
		{Name: "code_challenge_method", Value: p.challengeMethod},
	}
}

func (p params) purpose() []string {
	purpose := []string{"authorize"}
	for _, f := range p.fields() {
		purpose = append(purpose, f.Value)
	}
	return purpose
}

// returnTo is the path of the same authorization request.
func (p params) returnTo() string {
	q := url.Values{}
	for _, f := range p.fields() {
		if f.Value != "" {
			q.Set(f.Name, f.Value)
		}
	}
	return authorizePath + "?" + q.Encode()
}

// redirect answers the authorization request (RFC 6749 section 4.1.2).
func (p params) redirect(w http.ResponseWriter, r *http.Request, kv ...string) {
	u, err := url.Parse(p.redirectURI)
	if err != nil { // it is one of the configured ones
		http.Error(w, "cannot return to the application", http.StatusInternalServerError)
		return
	}
	q := u.Query()
	for i := 0; i+1 < len(kv); i += 2 {
		q.Set(kv[i], kv[i+1])
	}
	if p.state != "" {
		q.Set("state", p.state)
	}
	u.RawQuery = q.Encode()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, u.String(), http.StatusFound)
}

// checked parses the request and answers it itself when it is no good.
func (h *Host) checked(w http.ResponseWriter, r *http.Request, v url.Values) (params, bool) {
	p, problem, redirectable := h.parseParams(v)
	fault := h.faults.Authorize()
	switch {
	case problem != "" && !redirectable:
		h.pages.Show(w, http.StatusBadRequest, page.Page{Title: "This request cannot go on", Lead: problem})
		return p, false
	case problem != "":
		p.redirect(w, r, "error", problem)
		return p, false
	case fault != "":
		p.redirect(w, r, "error", fault, "error_description", "switched-on fault")
		return p, false
	}
	return p, true
}

// showAuthorize asks the signed-in person; others sign in first.
func (h *Host) showAuthorize(w http.ResponseWriter, r *http.Request) {
	p, ok := h.checked(w, r, r.URL.Query())
	if !ok {
		return
	}
	b := h.cookies.Known(r)
	person, ok := h.signedIn(b)
	if !ok {
		http.Redirect(w, r, loginPath+"?"+url.Values{"return_to": {p.returnTo()}, "login": {p.login}}.Encode(), http.StatusFound)
		return
	}
	var items []string
	for _, s := range p.scopes() {
		text, _ := scopeText(s)
		items = append(items, text)
	}
	if len(items) == 0 {
		items = append(items, "See your public information")
	}
	h.pages.Show(w, http.StatusOK, page.Page{
		Title:  "Authorize " + p.client.Name,
		Lead:   p.client.Name + " wants to access the octohub account " + person.Octohub.Login + ". It could:",
		Items:  items,
		Action: authorizePath,
		Hidden: append(p.fields(), page.Field{Name: "csrf", Value: b.Token(p.purpose()...)}),
		Buttons: []page.Button{
			{Value: "authorize", Label: "Authorize"}, {Value: "cancel", Label: "Cancel"}, {Value: "switch", Label: "Use another account"},
		},
	})
}

// authorize takes the person's answer.
func (h *Host) authorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "cannot read the form", http.StatusBadRequest)
		return
	}
	p, ok := h.checked(w, r, r.PostForm)
	if !ok {
		return
	}
	b := h.cookies.Known(r)
	person, ok := h.signedIn(b)
	if !ok || !b.Verify(r.PostForm.Get("csrf"), p.purpose()...) {
		http.Error(w, "this form was not made for you", http.StatusForbidden)
		return
	}
	switch r.PostForm.Get("action") {
	case "authorize":
		text, err := h.issueCode(p, person)
		if err != nil {
			h.failed(w, r, err)
			return
		}
		h.log.InfoContext(r.Context(), "authorized", "user", person.Octohub.ID, "client", p.client.ID)
		p.redirect(w, r, "code", text)
	case "cancel":
		p.redirect(w, r, "error", "access_denied", "error_description", "The user has denied your application access.")
	case "switch":
		if err := h.state.Update(func(st *state) error { delete(st.Sessions, b.ID()); return nil }); err != nil {
			h.failed(w, r, err)
			return
		}
		http.Redirect(w, r, loginPath+"?"+url.Values{"return_to": {p.returnTo()}}.Encode(), http.StatusSeeOther)
	default:
		http.Error(w, "the form has no such button", http.StatusBadRequest)
	}
}

func (h *Host) issueCode(p params, person people.Person) (text string, err error) {
	text = grants.NewToken("")
	return text, h.state.Update(func(st *state) error {
		now := time.Now()
		st.prune(now)
		if len(st.Codes) >= maxPending {
			return errBusy
		}
		st.Codes[grants.Key(text)] = code{
			Client: p.client.ID, User: person.Octohub.ID, RedirectURI: p.redirectURI, Scopes: p.scopes(),
			Challenge: p.challenge, Expires: now.Add(h.lifetimes.Code),
		}
		return nil
	})
}

// signedIn returns who is signed in at the browser.
func (h *Host) signedIn(b page.Browser) (people.Person, bool) {
	if b.ID() == "" {
		return people.Person{}, false
	}
	var ses session
	h.state.View(func(st *state) { ses = st.Sessions[b.ID()] })
	if !time.Now().Before(ses.Expires) {
		return people.Person{}, false
	}
	return h.people.ByOctohubID(ses.User)
}

// returnPath keeps the way back inside the host: to an authorization request.
func returnPath(v string) (string, bool) {
	return v, strings.HasPrefix(v, authorizePath+"?") && len(v) < 4*maxParam
}

// showLogin shows the login form.
func (h *Host) showLogin(w http.ResponseWriter, r *http.Request) {
	to, ok := returnPath(r.URL.Query().Get("return_to"))
	if !ok {
		h.pages.Show(w, http.StatusBadRequest, page.Page{Title: "Nothing to sign in for", Lead: "Start at the application that you want to use."})
		return
	}
	h.showForm(w, http.StatusOK, h.cookies.Ensure(w, r), to, r.URL.Query().Get("login"), "")
}

func (h *Host) showForm(w http.ResponseWriter, status int, b page.Browser, to, username, problem string) {
	h.pages.Show(w, status, page.Page{
		Title:       "Sign in to octohub",
		Problem:     problem,
		Action:      loginPath,
		Hidden:      []page.Field{{Name: "return_to", Value: to}, {Name: "csrf", Value: b.Token("login", to)}},
		AskPassword: true,
		Username:    username,
		Buttons:     []page.Button{{Value: "login", Label: "Sign in"}},
	})
}

// login takes the form and starts a session under a new cookie.
func (h *Host) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "cannot read the form", http.StatusBadRequest)
		return
	}
	b := h.cookies.Known(r)
	to, ok := returnPath(r.PostForm.Get("return_to"))
	if !ok || !b.Verify(r.PostForm.Get("csrf"), "login", to) {
		http.Error(w, "this form was not made for you", http.StatusForbidden)
		return
	}
	username := r.PostForm.Get("username")
	person, ok := h.people.SignIn(username, r.PostForm.Get("password"))
	if !ok {
		h.showForm(w, http.StatusUnauthorized, b, to, username, "Wrong username or password.")
		return
	}
	fresh := h.cookies.Renew(w)
	err := h.state.Update(func(st *state) error {
		now := time.Now()
		st.prune(now)
		if len(st.Sessions) >= maxPending {
			return errBusy
		}
		delete(st.Sessions, b.ID())
		st.Sessions[fresh.ID()] = session{User: person.Octohub.ID, Expires: now.Add(h.lifetimes.Session)}
		return nil
	})
	if err != nil {
		h.failed(w, r, err)
		return
	}
	h.log.InfoContext(r.Context(), "signed in", "user", person.Octohub.ID)
	http.Redirect(w, r, to, http.StatusSeeOther)
}
