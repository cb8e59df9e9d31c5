package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// crowd is how many people the identity providers know: one for each login that
// must not meet another test's.
const crowd = 60

// person can sign in at both providers.
type person struct {
	Username, Password string
	Name               string // at corp, and so at payroll
	Login              string // at octohub, and so at repos
	CorpID             string
	OctohubID          int64
	Net                string // of the payslip
}

func personNumber(i int) person {
	return person{
		Username: fmt.Sprintf("user%02d", i), Password: fmt.Sprintf("password-of-%02d", i),
		Name: fmt.Sprintf("Person Number%02d", i), Login: fmt.Sprintf("coder-%02d", i),
		CorpID: fmt.Sprintf("emp-%04d", 7000+i), OctohubID: int64(810000 + i),
		Net: fmt.Sprintf("%d.17", 3000+i),
	}
}

// writePeople writes the file that the examples read.
func writePeople(path string) error {
	var b strings.Builder
	b.WriteString("people:\n")
	for i := range crowd {
		p := personNumber(i)
		fmt.Fprintf(&b, `  - username: %s
    password: %s
    name: %s
    email: %s@example.com
    corp: {id: %s}
    octohub:
      id: %d
      login: %s
      repositories:
        - {name: repo-of-%s, description: "Work", language: Go}
    payslip: {period: "2026-09", currency: EUR, gross: "5000.00", net: "%s"}
`, p.Username, p.Password, p.Name, p.Username, p.CorpID, p.OctohubID, p.Login, p.Login, p.Net)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

var nextPerson atomic.Int64

// newPerson returns somebody whom no other test uses.
func newPerson(t *testing.T) person {
	t.Helper()
	i := int(nextPerson.Add(1)) - 1
	if i >= crowd {
		t.Fatalf("more than %d people are needed: raise crowd", crowd)
	}
	return personNumber(i)
}

// browser is the person at a browser of their own.
func (p person) browser(t *testing.T, change ...func(*browse.Options)) *browse.Browser {
	t.Helper()
	opts := browse.Options{Account: browse.Account{Username: p.Username, Password: p.Password}}
	for _, c := range change {
		c(&opts)
	}
	b, err := browse.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const redirectURI = "http://127.0.0.1:33418/callback"

// newClient discovers the deployment and registers a client of its own.
func newClient(t *testing.T) *journey.Client {
	t.Helper()
	return newClientAt(t, shared.stack.MCPURL())
}

func newClientAt(t *testing.T, mcpURL string) *journey.Client {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second}
	found, err := journey.Discover(t.Context(), client, mcpURL)
	if err != nil {
		t.Fatal(err)
	}
	registered, err := found.Register(t.Context(), client, "Desk assistant", redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	return registered
}

// logIn logs the person in with a new client.
func (p person) logIn(t *testing.T) *journey.Login {
	t.Helper()
	login, err := newClient(t).Login(t.Context(), p.browser(t))
	if err != nil {
		t.Fatal(err)
	}
	return login
}
