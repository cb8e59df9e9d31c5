package browse

import (
	"net/http"
	"net/url"
	"testing"
)

// FuzzPage: whatever a server sends, the walk goes on or ends with an error, and
// a form never leads to anything but a web address.
func FuzzPage(f *testing.F) {
	for _, seed := range []string{
		"", "<form>", `<form method=post action="//x/y"><input type=password><select name=a><option></select><button>`,
		`<form action="javascript:alert(1)"><input type=submit value=Go>`, "<title>a<title>b</form></form><form><form>",
	} {
		f.Add(seed)
	}
	base := &url.URL{Scheme: "http", Host: "h.example", Path: "/login"}
	f.Fuzz(func(t *testing.T, body string) {
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/html"}}}
		pg, err := parsePage(base, resp, []byte(body))
		if err != nil {
			return
		}
		form, ok := pg.mainForm()
		if !ok {
			return
		}
		req, err := form.request(t.Context(), pg, Account{"u", "p"}, form.mainButton())
		if err == nil && req.URL.Scheme != "http" && req.URL.Scheme != "https" {
			t.Errorf("the form leads to %s", req.URL)
		}
	})
}
