package corp

import (
	"net/http"
	"net/url"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chatelaine.dev/examples/internal/page"
)

// maxFailures is how many wrong passwords end an authorization request.
const maxFailures = 5

// showLogin shows the login form.
func (p *Provider) showLogin(w http.ResponseWriter, r *http.Request) {
	req, b, ok := p.loginRequest(w, r, r.URL.Query().Get("id"))
	if !ok {
		return
	}
	p.showForm(w, http.StatusOK, req, b, req.LoginHint, "")
}

func (p *Provider) showForm(w http.ResponseWriter, status int, req authRequest, b page.Browser, username, problem string) {
	p.pages.Show(w, status, page.Page{
		Title:       "Sign in to corp",
		Lead:        "to continue to " + req.Client,
		Problem:     problem,
		Action:      loginPath,
		Hidden:      []page.Field{{Name: "id", Value: req.ID}, {Name: "csrf", Value: b.Token("login", req.ID)}},
		AskPassword: true,
		Username:    username,
		Buttons:     []page.Button{{Value: "login", Label: "Sign in"}, {Value: "cancel", Label: "Cancel"}},
	})
}

// login takes the form.
func (p *Provider) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "cannot read the form", http.StatusBadRequest)
		return
	}
	req, b, ok := p.loginRequest(w, r, r.PostForm.Get("id"))
	if !ok {
		return
	}
	if !b.Verify(r.PostForm.Get("csrf"), "login", req.ID) {
		http.Error(w, "this form was not made for you", http.StatusForbidden)
		return
	}
	switch r.PostForm.Get("action") {
	case "cancel":
		p.cancel(w, r, req)
	case "login":
		p.signIn(w, r, req, b)
	default:
		http.Error(w, "the form has no such button", http.StatusBadRequest)
	}
}

func (p *Provider) cancel(w http.ResponseWriter, r *http.Request, req authRequest) {
	if err := p.storage.DeleteAuthRequest(r.Context(), req.ID); err != nil {
		p.failed(w, r, err)
		return
	}
	noStore(w)
	op.AuthRequestError(w, r, &req, oidc.ErrAccessDenied().WithDescription("the person cancelled the login"), p.op)
}

func (p *Provider) signIn(w http.ResponseWriter, r *http.Request, req authRequest, b page.Browser) {
	username := r.PostForm.Get("username")
	person, ok := p.storage.people.SignIn(username, r.PostForm.Get("password"))
	if !ok {
		p.wrongPassword(w, r, req, b, username)
		return
	}
	ok, err := p.markSignedIn(req.ID, person.Corp.ID)
	if err != nil || !ok {
		p.failed(w, r, err)
		return
	}
	p.log.InfoContext(r.Context(), "signed in", "user", person.Corp.ID, "client", req.Client)
	noStore(w)
	http.Redirect(w, r, callbackPath+"?id="+url.QueryEscape(req.ID), http.StatusSeeOther)
}

func (p *Provider) wrongPassword(w http.ResponseWriter, r *http.Request, req authRequest, b page.Browser, username string) {
	changed, ok, err := p.storage.changeRequest(req.ID, func(req *authRequest) { req.Failures++ })
	if err != nil {
		p.failed(w, r, err)
		return
	}
	if !ok || changed.Failures >= maxFailures {
		p.cancel(w, r, req)
		return
	}
	p.showForm(w, http.StatusUnauthorized, req, b, username, "Wrong username or password.")
}

func (p *Provider) failed(w http.ResponseWriter, r *http.Request, err error) {
	p.log.ErrorContext(r.Context(), "login failed", "error", err)
	http.Error(w, "the login could not be completed", http.StatusInternalServerError)
}
