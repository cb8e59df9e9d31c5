package octohub_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"chatelaine.dev/examples/browse"
	"golang.org/x/oauth2"
)

func TestThePersonCanRefuseAndChangeAccounts(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	begin := in.oauth().AuthCodeURL("st")
	cancel := newPerson(t, "alice", func(_ browse.Page, f browse.Form) *browse.Button { return f.Button("action", "cancel") })
	got, err := cancel.Walk(t.Context(), begin, redirectURI)
	if err != nil || got.URL.Query().Get("error") != "access_denied" || got.URL.Query().Get("state") != "st" || got.URL.Query().Has("code") {
		t.Errorf("after Cancel: %v, %v", got.URL, err)
	}

	var text string
	var passwords, switched int
	b, err := browse.New(browse.Options{
		Account: browse.Account{Username: "alice", Password: "alice-password"},
		Press: func(p browse.Page, f browse.Form) *browse.Button {
			if strings.HasPrefix(p.Title, "Authorize") && switched == 1 {
				switched++
				return f.Button("action", "switch")
			}
			return nil
		},
		OnPage: func(p browse.Page) error {
			text = p.Text
			if strings.HasPrefix(p.Title, "Sign in") {
				passwords++
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := b.Walk(t.Context(), begin, redirectURI); err != nil {
			t.Fatal(err)
		}
		if passwords != 1 || !strings.Contains(text, "alice-codes") || !strings.Contains(text, "private ones too") {
			t.Errorf("walk %d: asked for a password %d times; page %q", i, passwords, text)
		}
	}
	switched = 1
	if _, err := b.Walk(t.Context(), begin, redirectURI); err != nil {
		t.Fatal(err)
	}
	if passwords != 2 {
		t.Errorf("after changing accounts the password was asked for %d times", passwords)
	}
}

func TestAWrongPasswordIsSaidSo(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	b, err := browse.New(browse.Options{Account: browse.Account{Username: "alice", Password: "bob-password"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Walk(t.Context(), in.oauth().AuthCodeURL("st"), redirectURI)
	if stuck, ok := errors.AsType[*browse.StuckError](err); !ok || stuck.Page.Status != http.StatusUnauthorized {
		t.Errorf("err = %v", err)
	}
}

func TestAuthorizationRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg := in.oauth()
	for name, c := range map[string]struct{ url, wantError string }{
		"unknown client": {cfg.AuthCodeURL("st", oauth2.SetAuthURLParam("client_id", "x")), ""},
		"other redirect": {cfg.AuthCodeURL("st", oauth2.SetAuthURLParam("redirect_uri", redirectURI+"/x")), ""},
		"sent twice":     {cfg.AuthCodeURL("st") + "&state=other", ""},
		"token response": {cfg.AuthCodeURL("st", oauth2.SetAuthURLParam("response_type", "token")), "unsupported_response_type"},
		"plain PKCE":     {cfg.AuthCodeURL("st", oauth2.SetAuthURLParam("code_challenge", strings.Repeat("a", 43))), "invalid_request"},
	} {
		status, header, _ := do(t, http.MethodGet, c.url, "", "")
		loc, _ := url.Parse(header.Get("Location"))
		if c.wantError == "" {
			if status != http.StatusBadRequest || header.Get("Location") != "" {
				t.Errorf("%s: %d %s", name, status, loc)
			}
		} else if status != http.StatusFound || loc.Query().Get("error") != c.wantError || !strings.HasPrefix(loc.String(), redirectURI+"?") {
			t.Errorf("%s: %d %s", name, status, loc)
		}
	}
	for _, to := range []string{"", "https://evil.example", "//evil.example", "/login/oauth/authorized"} {
		if status, _, _ := do(t, http.MethodGet, in.url+"/login?return_to="+url.QueryEscape(to), "", ""); status != http.StatusBadRequest {
			t.Errorf("return_to %q: %d", to, status)
		}
	}
}

func TestAForgedApprovalIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	form := url.Values{"client_id": {"chatelaine"}, "redirect_uri": {redirectURI}, "action": {"authorize"}, "csrf": {"x"}}
	if status, header, _ := do(t, http.MethodPost, in.url+"/login/oauth/authorize", formType, form.Encode()); status != http.StatusForbidden {
		t.Errorf("without a session: %d %s", status, header.Get("Location"))
	}
	if status, _, _ := do(t, http.MethodPost, in.url+"/login/oauth/authorize", formType, form.Encode(), "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden {
		t.Errorf("from another site: %d", status)
	}
	// A signed-in person's browser that is made to send a form with more scopes.
	changed := false
	b := newPerson(t, "alice", func(p browse.Page, f browse.Form) *browse.Button {
		for i := range f.Fields {
			if f.Fields[i].Name == "scope" {
				f.Fields[i].Value, changed = "repo user:email", true
			}
		}
		return nil
	})
	_, err := b.Walk(t.Context(), in.oauth().AuthCodeURL("st"), redirectURI)
	if stuck, ok := errors.AsType[*browse.StuckError](err); !ok || !changed || stuck.Page.Status != http.StatusForbidden {
		t.Errorf("a changed form: %v", err)
	}
}
