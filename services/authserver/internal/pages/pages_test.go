package pages_test

import (
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/services/authserver/internal/pages"
)

// update rewrites the golden pages: go test ./internal/pages -update.
var update = flag.Bool("update", false, "rewrite the golden files")

func consent() pages.Consent {
	return pages.Consent{
		Action: "/oauth/consent", Request: "REQUEST", Token: "TOKEN", ClientName: "Example Client", SelfRegistered: true, ReturnsTo: "127.0.0.1:33418", Loopback: true,
		Resources: []string{"http://localhost:8000/mcp"},
		// A scope of our own is not what a provider calls by the same name.
		Permissions: pages.Own([]string{"tools", "repo", "offline_access"}),
		Providers: []pages.Provider{
			{Name: "corp", Primary: true, Permissions: pages.Permissions([]string{"openid", "profile", "email", "offline_access"})},
			{Name: "octohub", Optional: true, Permissions: pages.Permissions([]string{"repo", "read:user", "custom:scope"})},
			{Name: "wiki", Optional: true, Unavailable: true},
		},
		Targets: pages.FormTargets("http://127.0.0.1:33418/cb"), Reference: "4bf92f3577b34da6a3ce929d0e0e4736",
	}
}

func render(t *testing.T, show func(r *pages.Renderer, w *httptest.ResponseRecorder) error) *httptest.ResponseRecorder {
	t.Helper()
	r, err := pages.New()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := show(r, w); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestThePagesLookAsAgreed(t *testing.T) {
	t.Parallel()
	https := consent()
	https.ClientName, https.SelfRegistered, https.ReturnsTo, https.Loopback, https.Targets = "", false, "client.example", false, pages.FormTargets("https://client.example/cb")
	for name, show := range map[string]func(r *pages.Renderer, w *httptest.ResponseRecorder) error{
		"consent":       func(r *pages.Renderer, w *httptest.ResponseRecorder) error { return r.Consent(w, consent()) },
		"consent-https": func(r *pages.Renderer, w *httptest.ResponseRecorder) error { return r.Consent(w, https) },
		"confirm": func(r *pages.Renderer, w *httptest.ResponseRecorder) error {
			return r.Confirm(w, pages.Confirm{
				Action: "/oauth/confirm", Request: "REQUEST", Token: "TOKEN", ClientName: "Example Client",
				Changes: []pages.Change{{Provider: "octohub", Previous: "alice", New: "alice-at-work"}, {Provider: "wiki", New: "alice"}},
				Targets: pages.FormTargets("cursor://anysphere/cb"), Reference: "4bf92f3577b34da6a3ce929d0e0e4736",
			})
		},
		"error-return": func(r *pages.Renderer, w *httptest.ResponseRecorder) error {
			return r.Error(w, 400, pages.Error{
				Title: "The sign-in cannot begin", What: "The request does not work.", Next: "Go back.",
				Return: &pages.Return{Place: "cursor:", URL: `cursor://x/cb?error=invalid_request&a="><script>`},
			})
		},
		"error": func(r *pages.Renderer, w *httptest.ResponseRecorder) error {
			return r.Error(w, 400, pages.Error{Title: "This sign-in has expired", What: "It took longer than ten minutes.", Next: "Go back and start again."})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := render(t, show)
			got := "Content-Security-Policy: " + w.Header().Get("Content-Security-Policy") + "\n\n" + w.Body.String()
			path := filepath.Join("testdata", name+".golden.html")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheStyleIsTheOneThatThePolicyAllows(t *testing.T) {
	t.Parallel()
	w := render(t, func(r *pages.Renderer, w *httptest.ResponseRecorder) error { return r.Consent(w, consent()) })
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(w.Body.String())
	if style == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	if hash := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(w.Header().Get("Content-Security-Policy"), "style-src 'sha256-"+hash+"'") {
		t.Error("browsers would drop the style: its hash is not in the policy")
	}
}

func TestWhatAClientSaysOfItselfIsOnlyText(t *testing.T) {
	t.Parallel()
	evil := consent()
	evil.ClientName = `"><script>alert(1)</script><form action="https://evil.example">`
	evil.ReturnsTo = `x" onmouseover="alert(1)`
	evil.Resources = []string{"<img src=x>"}
	body := render(t, func(r *pages.Renderer, w *httptest.ResponseRecorder) error { return r.Consent(w, evil) }).Body.String()
	for _, bad := range []string{"<script", "<img", `onmouseover="`, "evil.example\">"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if strings.Count(body, "<form") != 1 {
		t.Error("the page has a form that is not ours")
	}
}

func TestAFormLeadsOnlyWhereALoginGoes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ urls, want []string }{
		{nil, []string{"https:"}},
		{[]string{"https://a.example", "http://localhost:1/cb"}, []string{"https:", "http:"}},
		{[]string{"http://[::1]:1/cb", "cursor://x"}, []string{"https:", "http:", "cursor:"}},
		{[]string{"javascript:alert(1)", "data:text/html,x", "%zz"}, []string{"https:"}},
	} {
		if got := pages.FormTargets(tt.urls...); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.urls, got, tt.want)
		}
	}
}
