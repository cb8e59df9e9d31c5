package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"chatelaine.dev/examples/journey"
)

// listenCallback is a client's redirect listener: the browser ends there.
func listenCallback(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>Signed in</title><h1>You can close this window</h1>")
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + l.Addr().String() + "/callback"
}

// visit is what the browser script reports.
type visit struct {
	URL         string
	Pages       []struct{ URL, Title, Heading string }
	Problems    []string
	Screenshots []string
}

func browseWithChromium(t *testing.T, p person, start, until, scheme string, width int, stopAt any) visit {
	t.Helper()
	chromium := need(t, "Chromium", os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
	var screenshots any
	if dir := os.Getenv("E2E_SCREENSHOTS"); dir != "" {
		screenshots = dir
	}
	s := startScript(t, "browser.mjs")
	s.send(map[string]any{
		"start": start, "until": until, "chromium": chromium, "scheme": scheme, "width": width, "stopAt": stopAt, "screenshots": screenshots,
		"account": map[string]string{"username": p.Username, "password": p.Password},
	})
	var v visit
	s.receive(&v)
	s.finish()
	return v
}

func TestChromiumWalksConsentAndBothLogins(t *testing.T) {
	t.Parallel()
	for _, look := range []struct {
		scheme string
		width  int
	}{{"light", 1280}, {"dark", 1280}, {"light", 390}} {
		t.Run(fmt.Sprintf("%s %d", look.scheme, look.width), func(t *testing.T) {
			p := newPerson(t)
			client := newClient(t)
			client.RedirectURI = listenCallback(t) // another port of a registered loopback URI (RFC 8252, section 7.3)
			r := client.Authorize()
			v := browseWithChromium(t, p, r.URL, client.RedirectURI, look.scheme, look.width, nil)
			if len(v.Problems) > 0 {
				t.Errorf("the browser complained: %v", v.Problems)
			}
			var hosts []string
			for _, page := range v.Pages {
				hosts = append(hosts, strings.Split(strings.TrimPrefix(page.URL, "http://"), "/")[0])
			}
			ports := shared.stack.Ports()
			want := []string{local(ports.Authserver), local(ports.Corp), local(ports.Octohub)}
			at := 0
			for _, host := range hosts {
				if at < len(want) && host == want[at] {
					at++
				}
			}
			if at != len(want) {
				t.Errorf("the browser saw pages of %v, want %v in this order", hosts, want)
			}
			code, err := client.Callback(r, mustParse(t, v.URL))
			if err != nil {
				t.Fatal(err)
			}
			token, err := client.Redeem(t.Context(), r, code)
			if err != nil {
				t.Fatal(err)
			}
			claims, err := journey.ParseClaims(token.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			login := &journey.Login{Client: client, Token: token, Claims: claims}
			checkCalls(t, connect(t, login, journey.ConnectOptions{}), p)
		})
	}
}
