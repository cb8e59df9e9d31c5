package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"chatelaine.dev/internal/fault"
)

//go:embed templates/*.html templates/style.css
var files embed.FS

// Consent is the page before the first leg.
type Consent struct {
	// Action is the path that the form is posted to; Request and Token go with it.
	Action, Request, Token string
	ClientName             string
	// SelfRegistered: nobody has checked who the client is.
	SelfRegistered bool
	// ReturnsTo is the host, or application, that gets the answer.
	ReturnsTo string
	// Loopback: it returns to a program on this computer.
	Loopback  bool
	Resources []string
	// Permissions are the scopes of the client's own tokens; see Own.
	Permissions []Permission
	Providers   []Provider
	// Targets are the schemes that the form may lead to; see FormTargets.
	Targets   []string
	Reference string
}

// Provider is an account that will be connected.
type Provider struct {
	Name        string
	Primary     bool
	Optional    bool
	Unavailable bool
	// Permissions are what is asked for, in words.
	Permissions []Permission
}

// Permission is a scope: in words, or as it is written when nobody gave it words.
type Permission struct {
	Words string
	Scope string
}

// Confirm is the page that asks whether a change of account is meant.
type Confirm struct {
	Action, Request, Token string
	ClientName             string
	Changes                []Change
	Targets                []string
	Reference              string
}

// Change is a provider where the person arrived with another account.
type Change struct{ Provider, Previous, New string }

// Error is a page that says what went wrong and what to do.
type Error struct {
	Title string
	// What happened, and what the person can do next.
	What, Next string
	// Return, when set, is a link to where the person came from.
	Return *Return
	// Reference finds the logs; it is a trace id.
	Reference string
}

// Return is a link that answers the client.
type Return struct {
	// Place is the host, or application, that it leads to.
	Place string
	// URL is of a redirect URI that was checked when it was registered.
	URL template.URL
}

// Renderer writes pages.
type Renderer struct {
	templates *template.Template
	style     template.CSS
	styleHash string
}

// New parses the templates.
func New() (*Renderer, error) {
	css, err := files.ReadFile("templates/style.css")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot read the style sheet")
	}
	templates, err := template.ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot read the pages")
	}
	sum := sha256.Sum256(css)
	return &Renderer{
		templates: templates, style: template.CSS(css), //nolint:gosec // our own file, embedded
		styleHash: "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
	}, nil
}

// Consent writes the consent page.
func (r *Renderer) Consent(w http.ResponseWriter, c Consent) error {
	return r.write(w, http.StatusOK, "consent.html", "Connect your accounts", c.Targets, c)
}

// Confirm writes the confirmation page.
func (r *Renderer) Confirm(w http.ResponseWriter, c Confirm) error {
	return r.write(w, http.StatusOK, "confirm.html", "A different account", c.Targets, c)
}

// Error writes an error page with a status.
func (r *Renderer) Error(w http.ResponseWriter, status int, e Error) error {
	return r.write(w, status, "error.html", e.Title, nil, e)
}

// write renders first, so that a page is whole or not there.
func (r *Renderer) write(w http.ResponseWriter, status int, name, title string, targets []string, data any) error {
	var page bytes.Buffer
	err := r.templates.ExecuteTemplate(&page, name, struct {
		Title string
		Style template.CSS
		Page  any
	}{title, r.style, data})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot render the page "+name)
	}
	formAction := "'none'"
	if len(targets) > 0 {
		formAction = "'self' " + strings.Join(targets, " ")
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+r.styleHash+
		"; form-action "+formAction+"; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	if _, err := w.Write(page.Bytes()); err != nil {
		return fault.Wrap(fault.Canceled, err, "the browser went away")
	}
	return nil
}

// FormTargets returns the schemes that a login may redirect a browser to: those
// of the URLs that it will visit, and https, since a provider's own pages may be
// anywhere. Schemes that run something are never among them.
func FormTargets(urls ...string) []string {
	targets := []string{"https:"}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			continue
		}
		switch u.Scheme {
		case "", "javascript", "vbscript", "data", "blob", "filesystem", "about":
			continue
		}
		if scheme := u.Scheme + ":"; !slices.Contains(targets, scheme) {
			targets = append(targets, scheme)
		}
	}
	return targets
}
