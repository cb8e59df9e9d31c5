package people_test

import (
	"fmt"
	"strings"
	"testing"

	"chatelaine.dev/examples/people"
)

func TestDefaultHasAliceAndBobWithDifferentIDsEverywhere(t *testing.T) {
	t.Parallel()
	d, err := people.Default()
	if err != nil {
		t.Fatal(err)
	}
	alice, ok := d.SignIn("alice", "alice-password")
	if !ok {
		t.Fatal("alice cannot sign in")
	}
	bob, ok := d.SignIn("bob", "bob-password")
	if !ok {
		t.Fatal("bob cannot sign in")
	}
	if alice.Corp.ID == bob.Corp.ID || alice.Octohub.ID == bob.Octohub.ID {
		t.Errorf("alice and bob share an id: %+v, %+v", alice, bob)
	}
	if got, ok := d.ByCorpID(alice.Corp.ID); !ok || got.Username != "alice" {
		t.Errorf("ByCorpID(%q) = %v, %v", alice.Corp.ID, got, ok)
	}
	if got, ok := d.ByOctohubID(bob.Octohub.ID); !ok || got.Username != "bob" {
		t.Errorf("ByOctohubID(%d) = %v, %v", bob.Octohub.ID, got, ok)
	}
	if text := fmt.Sprintf("%+v", alice); strings.Contains(text, "alice-password") {
		t.Errorf("a printed person shows the password: %s", text)
	}
}

func TestSignInRefusesAWrongPasswordAndAnotherPersonsPassword(t *testing.T) {
	t.Parallel()
	d, err := people.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"alice", "bob-password"}, {"alice", ""}, {"", ""}, {"carol", "alice-password"}, {"alice", "alice-password "}} {
		if p, ok := d.SignIn(c[0], c[1]); ok {
			t.Errorf("SignIn(%q, %q) let %s in", c[0], c[1], p.Username)
		}
	}
}

func TestParseReportsEveryProblemByPath(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"nobody":        {"people: []", "nobody is listed"},
		"unknown field": {"people: [{user: alice}]", "user"},
		"same id": {`{"people":[
			{"username":"a","password":"x","name":"A","corp":{"id":"1"},"octohub":{"id":1,"login":"a"}},
			{"username":"b","password":"x","name":"B","corp":{"id":"1"},"octohub":{"id":2,"login":"b"}}]}`, "people[1].corp.id: same as people[0].corp.id"},
		"separator in id": {`people: [{username: a, password: x, name: A, corp: {id: "1:2"}, octohub: {id: 1, login: a}}]`, "people[0].corp.id"},
		"no password":     {`people: [{username: a, name: A, corp: {id: "1"}, octohub: {id: 1, login: a}}]`, "needs a password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := people.Parse([]byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse = %v, want an error with %q", err, c.want)
			}
		})
	}
}
