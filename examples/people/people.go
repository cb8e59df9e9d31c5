package people

import (
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/internal/secret"
)

//go:embed people.yaml
var defaultFile []byte

// idRE keeps identifiers free of the characters that tokens and URLs use as
// separators: corp's opaque tokens hold "token id:user id".
var idRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Person is somebody who can sign in at both providers.
type Person struct {
	Username string        `yaml:"username"`
	Password secret.String `yaml:"-"`
	// Name is the full name, e.g. "Alice Archer".
	Name    string  `yaml:"name"`
	Email   string  `yaml:"email"`
	Corp    Corp    `yaml:"corp"`
	Octohub Octohub `yaml:"octohub"`
	Payslip Payslip `yaml:"payslip"`
}

// Corp is the account at the corporate identity provider.
type Corp struct {
	// ID is the subject claim: stable when the person is renamed.
	ID string `yaml:"id"`
}

// Octohub is the account at the code host.
type Octohub struct {
	// ID is the numeric account id: stable when the login changes.
	ID           int64        `yaml:"id"`
	Login        string       `yaml:"login"`
	Repositories []Repository `yaml:"repositories"`
}

// Repository is a repository that the person owns.
type Repository struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	Language    string `yaml:"language"`
	Private     bool   `yaml:"private"`
}

// Payslip is what payroll shows to its owner alone. Amounts are decimal text.
type Payslip struct {
	Period   string `yaml:"period"`
	Currency string `yaml:"currency"`
	Gross    string `yaml:"gross"`
	Net      string `yaml:"net"`
}

// Directory is a set of people, without two of the same name or id.
type Directory struct {
	people []Person
}

// Default returns alice and bob.
func Default() (*Directory, error) { return Parse(defaultFile) }

// Load reads a file; an empty path means Default.
func Load(path string) (*Directory, error) { return directory(rules.Load[file](path, defaultFile)) }

// Parse reads YAML (and so JSON). Unknown fields are errors.
func Parse(data []byte) (*Directory, error) { return directory(rules.Parse[file](data)) }

// file is what people are written in. Passwords arrive as plain text and leave as
// a type that does not print.
type file struct {
	People []struct {
		Person   `yaml:",inline"`
		Password string `yaml:"password"`
	} `yaml:"people"`
}

func directory(f file, err error) (*Directory, error) {
	if err != nil {
		return nil, fmt.Errorf("people: %w", err)
	}
	d := &Directory{people: make([]Person, 0, len(f.People))}
	for _, e := range f.People {
		p := e.Person
		p.Password = secret.New(e.Password)
		d.people = append(d.people, p)
	}
	if err := d.validate(); err != nil {
		return nil, fmt.Errorf("people: %w", err)
	}
	return d, nil
}

func (d *Directory) validate() error {
	var problems []error
	seen := map[string]string{}
	claim := func(i int, field, value string) {
		path := fmt.Sprintf("people[%d].%s", i, field)
		if other, ok := seen[field+"\x00"+value]; ok {
			problems = append(problems, fmt.Errorf("%s: same as %s", path, other))
		}
		seen[field+"\x00"+value] = path
	}
	for i, p := range d.people {
		if !idRE.MatchString(p.Username) {
			problems = append(problems, fmt.Errorf("people[%d].username: letters, digits, '.', '_' and '-' only", i))
		}
		if !idRE.MatchString(p.Corp.ID) {
			problems = append(problems, fmt.Errorf("people[%d].corp.id: letters, digits, '.', '_' and '-' only", i))
		}
		if !idRE.MatchString(p.Octohub.Login) || p.Octohub.ID <= 0 {
			problems = append(problems, fmt.Errorf("people[%d].octohub: needs a login and a positive id", i))
		}
		if p.Password.IsZero() || p.Name == "" {
			problems = append(problems, fmt.Errorf("people[%d]: needs a password and a name", i))
		}
		claim(i, "username", p.Username)
		claim(i, "corp.id", p.Corp.ID)
		claim(i, "octohub.id", fmt.Sprint(p.Octohub.ID))
		claim(i, "octohub.login", p.Octohub.Login)
	}
	if len(d.people) == 0 {
		problems = append(problems, errors.New("nobody is listed"))
	}
	return errors.Join(problems...)
}

// SignIn returns the person of that name and password. It compares with
// everybody, so that its time does not tell whether a name exists.
func (d *Directory) SignIn(username, password string) (Person, bool) {
	name, pass := sha256.Sum256([]byte(username)), sha256.Sum256([]byte(password))
	found := -1
	for i, p := range d.people {
		n, w := sha256.Sum256([]byte(p.Username)), sha256.Sum256([]byte(p.Password.Reveal()))
		if subtle.ConstantTimeCompare(name[:], n[:])&subtle.ConstantTimeCompare(pass[:], w[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Person{}, false
	}
	return d.people[found], true
}

// All returns everybody, in the order of the file.
func (d *Directory) All() []Person { return slices.Clone(d.people) }

// ByCorpID returns the person with that subject at corp.
func (d *Directory) ByCorpID(id string) (Person, bool) {
	return d.find(func(p Person) bool { return p.Corp.ID == id })
}

// ByOctohubID returns the person with that account id at octohub.
func (d *Directory) ByOctohubID(id int64) (Person, bool) {
	return d.find(func(p Person) bool { return p.Octohub.ID == id })
}

// ByUsername returns the person of that name.
func (d *Directory) ByUsername(name string) (Person, bool) {
	return d.find(func(p Person) bool { return p.Username == name })
}

func (d *Directory) find(match func(Person) bool) (Person, bool) {
	for _, p := range d.people {
		if match(p) {
			return p, true
		}
	}
	return Person{}, false
}
