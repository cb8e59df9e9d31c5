package browse

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Page is an HTML page as a person sees it.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Title  string
	// Text is the visible text, with single spaces.
	Text  string
	Forms []Form
}

// Form is a form of a page.
type Form struct {
	// Method is GET or POST.
	Method  string
	Action  *url.URL
	Fields  []Field
	Buttons []Button
}

// Field is an input, a select or a textarea, with what is filled in already.
type Field struct{ Name, Type, Value string }

// Button submits its form. Label is what is written on it.
type Button struct{ Name, Value, Label string }

// refusal is how buttons read that end a login.
var refusal = regexp.MustCompile(`(?i)\b(cancel|deny|denied|decline|refuse|reject|abort|no|back|logout|switch|another|other|disconnect|skip)\b`)

var (
	usernameFields = []string{"username", "user", "login", "email", "identifier"}
	passwordFields = []string{"password", "passwd", "pass"}
)

// parsePage reads an HTML answer; other content is a page without forms.
func parsePage(u *url.URL, resp *http.Response, body []byte) (Page, error) {
	pg := Page{URL: u, Status: resp.StatusCode, Header: resp.Header}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		pg.Text = strings.Join(strings.Fields(string(body)), " ")
		return pg, nil
	}
	doc, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		return Page{}, fmt.Errorf("browse: parse %s: %w", place(u), err)
	}
	var text strings.Builder
	for n := range doc.Descendants() {
		switch {
		case n.Type == html.TextNode && !hidden(n.Parent):
			text.WriteString(n.Data + " ")
		case n.DataAtom == atom.Title:
			pg.Title = nodeText(n)
		case n.DataAtom == atom.Form:
			if f, ok := parseForm(u, n); ok {
				pg.Forms = append(pg.Forms, f)
			}
		}
	}
	pg.Text = strings.Join(strings.Fields(text.String()), " ")
	return pg, nil
}

func hidden(n *html.Node) bool {
	for ; n != nil; n = n.Parent {
		switch n.DataAtom {
		case atom.Script, atom.Style, atom.Head, atom.Template:
			return true
		}
	}
	return false
}

func parseForm(base *url.URL, n *html.Node) (Form, bool) {
	action, err := base.Parse(attr(n, "action"))
	if err != nil || (action.Scheme != "http" && action.Scheme != "https") {
		return Form{}, false
	}
	f := Form{Method: http.MethodGet, Action: action}
	if strings.EqualFold(attr(n, "method"), "post") {
		f.Method = http.MethodPost
	}
	for c := range n.Descendants() {
		switch c.DataAtom {
		case atom.Input:
			f.addInput(c)
		case atom.Textarea:
			f.Fields = append(f.Fields, Field{attr(c, "name"), "textarea", nodeText(c)})
		case atom.Select:
			f.Fields = append(f.Fields, Field{attr(c, "name"), "select", selected(c)})
		case atom.Button:
			if t := strings.ToLower(attr(c, "type")); t == "" || t == "submit" {
				f.Buttons = append(f.Buttons, Button{attr(c, "name"), attr(c, "value"), nodeText(c)})
			}
		}
	}
	return f, true
}

func (f *Form) addInput(n *html.Node) {
	name, value := attr(n, "name"), attr(n, "value")
	switch t := strings.ToLower(attr(n, "type")); t {
	case "submit":
		f.Buttons = append(f.Buttons, Button{name, value, value})
	case "button", "reset", "image", "file":
	case "checkbox", "radio":
		if !has(n, "checked") {
			return
		}
		if value == "" {
			value = "on"
		}
		f.Fields = append(f.Fields, Field{name, t, value})
	default:
		f.Fields = append(f.Fields, Field{name, t, value})
	}
}

// mainForm is the one that asks for a password, else the first that posts, else
// the first.
func (pg Page) mainForm() (Form, bool) {
	for _, fits := range []func(Form) bool{
		Form.asksPassword,
		func(f Form) bool { return f.Method == http.MethodPost },
		func(Form) bool { return true },
	} {
		if i := slices.IndexFunc(pg.Forms, fits); i >= 0 {
			return pg.Forms[i], true
		}
	}
	return Form{}, false
}

func (f Form) asksPassword() bool {
	return slices.ContainsFunc(f.Fields, func(f Field) bool { return f.Type == "password" })
}

// mainButton is the first that does not read like a refusal. A form may have none.
func (f Form) mainButton() *Button {
	i := slices.IndexFunc(f.Buttons, func(b Button) bool {
		return !refusal.MatchString(b.Value) && !refusal.MatchString(b.Label)
	})
	if i < 0 {
		if len(f.Buttons) == 0 {
			return nil
		}
		i = 0
	}
	return &f.Buttons[i]
}

// Button returns the button with that name and value.
func (f Form) Button(name, value string) *Button {
	i := slices.IndexFunc(f.Buttons, func(b Button) bool { return b.Name == name && b.Value == value })
	if i < 0 {
		return nil
	}
	return &f.Buttons[i]
}

// request fills the form in and submits it as a browser does.
func (f Form) request(ctx context.Context, pg Page, account Account, button *Button) (*http.Request, error) {
	values := url.Values{}
	for _, field := range f.Fields {
		value := field.Value
		switch name := strings.ToLower(field.Name); {
		case field.Type == "password" || slices.Contains(passwordFields, name) && field.Type != "hidden":
			value = account.Password
		case field.Type != "hidden" && slices.Contains(usernameFields, name):
			value = account.Username
		}
		if field.Name != "" {
			values.Add(field.Name, value)
		}
	}
	if button != nil && button.Name != "" {
		values.Add(button.Name, button.Value)
	}
	if f.Method == http.MethodGet {
		target := *f.Action
		target.RawQuery = values.Encode()
		return http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, fmt.Errorf("browse: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", origin(pg, f.Action))
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if pg.URL.Scheme == f.Action.Scheme && pg.URL.Host == f.Action.Host {
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return req, nil
}

// origin is the Origin header of a form: pages that send no referrer have none
// (Fetch standard, "append a request Origin header").
func origin(pg Page, action *url.URL) string {
	same := pg.URL.Scheme == action.Scheme && pg.URL.Host == action.Host
	switch policy := pg.Header.Get("Referrer-Policy"); {
	case policy == "no-referrer", policy == "same-origin" && !same:
		return "null"
	}
	return pg.URL.Scheme + "://" + pg.URL.Host
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

func nodeText(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// selected is the value of the chosen option, or of the first.
func selected(n *html.Node) string {
	value, first := "", true
	for c := range n.Descendants() {
		if c.DataAtom != atom.Option {
			continue
		}
		if first || has(c, "selected") {
			value, first = attr(c, "value"), false
		}
	}
	return value
}
