package browse_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"chatelaine.dev/examples/browse"
)

const end = "http://client.example/callback"

// site is a little site with a login, a consent page and wrong turns.
func site(t *testing.T) string {
	t.Helper()
	html := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><title>Here</title><style>p{}</style><body>"+body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /start", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "seen", Value: "yes"})
		http.Redirect(w, r, "/login?x=1", http.StatusFound)
	})
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, _ *http.Request) {
		html(w, `<form method=get action=/search><input name=q></form>
			<form method=post action=/login>
			<input type=hidden name=csrf value="t&amp;k"><input name=username><input type=password name=password>
			<input type=checkbox name=remember><input type=checkbox name=terms value=yes checked>
			<select name=lang><option value=en><option value=de selected></select>
			<button name=action value=cancel>Cancel</button><button name=action value=go>Sign in</button></form>`)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		got := []string{r.FormValue("csrf"), r.FormValue("username"), r.FormValue("terms"), r.FormValue("remember"), r.FormValue("lang"), r.FormValue("action")}
		c, err := r.Cookie("seen")
		if want := []string{"t&k", "alice", "yes", "", "de", "go"}; err != nil || c.Value != "yes" || !slices.Equal(got, want) {
			t.Errorf("the form came with %q, cookie %v", got, err)
		}
		if r.Header.Get("Sec-Fetch-Site") != "same-origin" || r.Header.Get("Origin") != "http://"+r.Host {
			t.Errorf("Sec-Fetch-Site %q, Origin %q", r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin"))
		}
		if r.FormValue("password") != "secret" {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		http.Redirect(w, r, "/consent", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /consent", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer")
		html(w, `<p>Allow   this?</p><form method=post><button name=consent value=deny>Deny</button><button name=consent value=allow>Allow</button></form>`)
	})
	mux.HandleFunc("POST /consent", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "null" {
			t.Errorf("Origin %q from a page without referrers", r.Header.Get("Origin"))
		}
		http.Redirect(w, r, end+"?consent="+r.FormValue("consent"), http.StatusFound)
	})
	mux.HandleFunc("GET /circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "it  broke", http.StatusBadGateway) })
	mux.HandleFunc("GET /empty", func(w http.ResponseWriter, _ *http.Request) { html(w, "<p>nothing here</p>") })
	mux.HandleFunc("GET /repeat", func(w http.ResponseWriter, _ *http.Request) {
		html(w, `<form method=post action=/repeat><button>Go</button></form>`)
	})
	mux.HandleFunc("POST /repeat", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/consent", http.StatusTemporaryRedirect)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

func newBrowser(t *testing.T, opts browse.Options) *browse.Browser {
	t.Helper()
	b, err := browse.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWalkSignsInAndConsents(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, browse.Options{Account: browse.Account{Username: "alice", Password: "secret"}})
	got, err := b.Walk(t.Context(), site(t)+"/start?token=hush", end)
	if err != nil {
		t.Fatal(err)
	}
	if got.URL.String() != end+"?consent=allow" {
		t.Errorf("ended at %s", got.URL)
	}
	var lines []string
	for _, s := range got.Steps {
		lines = append(lines, s.String())
	}
	log := strings.Join(lines, "\n")
	if len(got.Steps) != 5 || !strings.Contains(log, `(pressed "Allow")`) || strings.Contains(log, "hush") {
		t.Errorf("log:\n%s", log)
	}
}

func TestAnotherButtonCanBePressed(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, browse.Options{
		Account: browse.Account{Username: "alice", Password: "secret"},
		Press: func(_ browse.Page, f browse.Form) *browse.Button {
			return f.Button("consent", "deny")
		},
	})
	got, err := b.Walk(t.Context(), site(t)+"/start", end)
	if err != nil || got.URL.String() != end+"?consent=deny" {
		t.Errorf("ended at %v, %v", got.URL, err)
	}
}

func TestWalksThatLeadNowhereEndWithTheReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ path, password, want string }{
		"wrong password":  {"/start", "wrong", "the login form came back"},
		"error page":      {"/broken", "", "it broke"},
		"no form":         {"/empty", "", "nothing here"},
		"a circle":        {"/circle", "", "too many hops"},
		"a repeated form": {"/repeat", "", "repeats the form"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBrowser(t, browse.Options{Account: browse.Account{Username: "alice", Password: c.password}})
			_, err := b.Walk(t.Context(), site(t)+c.path, end)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestEveryPageIsSeenAndCanEndTheWalk(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	b := newBrowser(t, browse.Options{OnPage: func(p browse.Page) error {
		if p.Title == "Here" && p.Text == "Allow this? Deny Allow" {
			return enough
		}
		return nil
	}})
	if _, err := b.Walk(t.Context(), site(t)+"/consent", end); !errors.Is(err, enough) {
		t.Errorf("err = %v", err)
	}
}
