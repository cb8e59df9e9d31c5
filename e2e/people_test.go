package e2e

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/e2e/crowd"
	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// person can sign in at both providers.
type person struct{ crowd.Person }

func personNumber(i int) person { return person{crowd.Number(i)} }

var nextPerson atomic.Int64

// newPerson returns somebody whom no other test uses.
func newPerson(t *testing.T) person {
	t.Helper()
	i := int(nextPerson.Add(1)) - 1
	if i >= crowd.Size {
		t.Fatalf("more than %d people are needed: raise crowd.Size", crowd.Size)
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
