package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatelaine.dev/examples/internal/page"
)

func TestTextOfStrangersIsShownAndNotRun(t *testing.T) {
	t.Parallel()
	rd, err := page.NewRenderer("corp")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	rd.Show(w, http.StatusOK, page.Page{
		Title: "<script>alert(1)</script>", Username: `"><script>`, AskPassword: true, Action: "javascript:alert(1)",
		Hidden: []page.Field{{Name: "id", Value: `"><script>`}}, Buttons: []page.Button{{Value: "login", Label: "Sign in"}},
	})
	body := w.Body.String()
	if strings.Contains(body, "<script>") || strings.Contains(body, "javascript:") {
		t.Errorf("the page runs foreign text:\n%s", body)
	}
	csp := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe-inline") {
		t.Errorf("Content-Security-Policy: %s", csp)
	}
	_, rest, _ := strings.Cut(body, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	if hash := base64.StdEncoding.EncodeToString(sum[:]); len(style) < 100 || !strings.Contains(csp, "'sha256-"+hash+"'") {
		t.Errorf("browsers refuse the page's style: its hash is %s, the policy %s", hash, csp)
	}
}

func TestAFormTokenWorksInItsBrowserForItsPurposeOnly(t *testing.T) {
	t.Parallel()
	cookies, err := page.NewCookies("corp", "http://localhost:5556")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	mine := cookies.Ensure(w, httptest.NewRequest(http.MethodGet, "/", nil))
	token := mine.Token("login", "r1")

	again := httptest.NewRequest(http.MethodPost, "/", nil)
	for _, c := range w.Result().Cookies() {
		if c.Name != "corp_5556" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("cookie %+v", c)
		}
		again.AddCookie(c)
	}
	if b := cookies.Known(again); !b.Verify(token, "login", "r1") || b.ID() != mine.ID() {
		t.Error("the browser does not know its own token")
	}
	other := cookies.Ensure(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	var none page.Browser
	for name, ok := range map[string]bool{
		"another browser":  other.Verify(token, "login", "r1"),
		"no browser":       none.Verify(none.Token("login", "r1"), "login", "r1"),
		"another purpose":  mine.Verify(token, "login", "r2"),
		"joined purpose":   mine.Verify(token, "loginr1"),
		"an empty token":   mine.Verify("", "login", "r1"),
		"equal browser id": none.ID() == mine.ID(),
	} {
		if ok {
			t.Errorf("accepted: %s", name)
		}
	}
}

func TestOnHTTPSTheCookieIsSecureAndBoundToTheHost(t *testing.T) {
	t.Parallel()
	cookies, err := page.NewCookies("corp", "https://idp.example")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	cookies.Ensure(w, httptest.NewRequest(http.MethodGet, "/", nil))
	c := w.Result().Cookies()[0]
	if c.Name != "__Host-corp" || !c.Secure || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
}
