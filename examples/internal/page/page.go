package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
)

//go:embed style.css
var style string

//go:embed page.html
var source string

// Page is what is shown. Without buttons it has no form.
type Page struct {
	Title, Lead string
	// Problem is what went wrong, in words for the person.
	Problem string
	Items   []string

	// Action is where the form goes.
	Action  string
	Hidden  []Field
	Buttons []Button
	// AskPassword shows the fields username (filled in with Username) and password.
	AskPassword bool
	Username    string
}

// Field is a hidden field of the form.
type Field struct{ Name, Value string }

// Button submits the form with action=Value. The first is the main one.
type Button struct{ Value, Label string }

// Renderer draws pages of one provider.
type Renderer struct {
	brand string
	tmpl  *template.Template
	csp   string
}

// NewRenderer returns a Renderer for the provider of that name.
func NewRenderer(brand string) (*Renderer, error) {
	tmpl, err := template.New("page").Parse(source)
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	sum := sha256.Sum256([]byte(style))
	return &Renderer{
		brand: brand,
		tmpl:  tmpl,
		// No form-action: browsers apply it to the redirects after the form too,
		// and those lead to the client's redirect URI.
		csp: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; frame-ancestors 'none'",
	}, nil
}

// Show writes the page with the status.
func (rd *Renderer) Show(w http.ResponseWriter, status int, p Page) {
	data := struct {
		Page
		Brand string
		Style template.CSS
	}{p, rd.brand, template.CSS(style)} // #nosec G203 -- our own embedded file
	var buf bytes.Buffer
	if err := rd.tmpl.Execute(&buf, data); err != nil {
		http.Error(w, "cannot draw the page", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", rd.csp)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: with that, browsers send "Origin: null" with the form.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = buf.WriteTo(w) // an error means that the browser is gone
}
