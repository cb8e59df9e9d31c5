// Package crowd is the people of the end-to-end tests, in the form that the
// example identity providers read.
package crowd

import (
	"fmt"
	"os"
	"strings"
)

// Size is how many people there are: one for each login that must not meet
// another test's.
const Size = 60

// Person can sign in at both providers.
type Person struct {
	Username, Password string
	Name               string // at corp, and so at payroll
	Login              string // at octohub, and so at repos
	CorpID             string
	OctohubID          int64
	Net                string // of the payslip
}

// Number returns the i-th person, from 0.
func Number(i int) Person {
	return Person{
		Username: fmt.Sprintf("user%02d", i), Password: fmt.Sprintf("password-of-%02d", i),
		Name: fmt.Sprintf("Person Number%02d", i), Login: fmt.Sprintf("coder-%02d", i),
		CorpID: fmt.Sprintf("emp-%04d", 7000+i), OctohubID: int64(810000 + i),
		Net: fmt.Sprintf("%d.17", 3000+i),
	}
}

// Write writes the file that the examples read.
func Write(path string) error {
	var b strings.Builder
	b.WriteString("people:\n")
	for i := range Size {
		p := Number(i)
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
	return os.WriteFile(path, []byte(b.String()), 0o644) //nolint:gosec // public passwords; other users' processes read it
}
