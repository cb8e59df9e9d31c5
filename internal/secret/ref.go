package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"chatelaine.dev/internal/fault"
)

// DirEnv names the environment variable with the folder of mounted secrets.
const DirEnv = "CHATELAINE_SECRETS_DIR"

// MaxSize bounds a secret's size in bytes.
const MaxSize = 64 << 10

const maxNameLength = 253 // as in Kubernetes

var (
	// The names of Kubernetes Secrets: RFC 1123 subdomains.
	nameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	// The keys of Kubernetes Secrets, without those that start with a dot.
	keyRE = regexp.MustCompile(`^[-_a-zA-Z0-9][-._a-zA-Z0-9]*$`)
)

// Ref names a secret, as clientSecretRef {name, key} does in a resource.
type Ref struct {
	Name string `json:"name" yaml:"name"`
	Key  string `json:"key"  yaml:"key"`
}

// ParseRef reads NAME/KEY and validates it.
func ParseRef(s string) (Ref, error) {
	name, key, ok := strings.Cut(s, "/")
	if !ok {
		// The text is not shown: somebody may have put the secret itself here.
		return Ref{}, fault.New(fault.Invalid, "a secret reference is written NAME/KEY")
	}
	r := Ref{Name: name, Key: key}
	return r, r.Validate()
}

// Validate checks both parts: a name is a DNS subdomain in lower case, a key
// has letters, digits, '-', '_' and '.', and neither can leave its folder.
func (r Ref) Validate() error {
	switch {
	case len(r.Name) > maxNameLength || !nameRE.MatchString(r.Name):
		return fault.New(fault.Invalid, "invalid secret reference").
			WithField("name", "must be a DNS name in lower case (letters, digits, '-', '.')")
	case len(r.Key) > maxNameLength || !keyRE.MatchString(r.Key):
		return fault.New(fault.Invalid, "invalid secret reference").
			WithField("key", "must have letters, digits, '-', '_' and '.' only, and not start with '.'")
	}
	return nil
}

// IsZero reports whether the reference names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// String returns NAME/KEY.
func (r Ref) String() string { return r.Name + "/" + r.Key }

// UnmarshalText implements encoding.TextUnmarshaler, for flags.
func (r *Ref) UnmarshalText(text []byte) error {
	parsed, err := ParseRef(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// EnvName returns the environment variable that may hold the secret: NAME_KEY
// in upper case, with '-' and '.' as '_'.
func (r Ref) EnvName() string {
	return strings.NewReplacer("-", "_", ".", "_").Replace(strings.ToUpper(r.Name + "_" + r.Key))
}

// Resolver reads secrets by reference.
type Resolver struct {
	// Dir is the folder of mounted secrets; empty means that there is none.
	Dir string
	// LookupEnv is os.LookupEnv, or a test's.
	LookupEnv func(string) (string, bool)
}

// NewResolver returns the resolver of this process's environment.
func NewResolver() *Resolver {
	return &Resolver{Dir: os.Getenv(DirEnv), LookupEnv: os.LookupEnv}
}

// Resolve returns the secret that ref names, with one trailing newline removed.
// A file that exists but cannot be used is an error, not a reason to look in
// the environment. Errors are Invalid (bad reference, empty or too large) or
// Precondition with reason "secret_missing" or "secret_unreadable"; they name
// the places that were looked in and never show a value.
func (r *Resolver) Resolve(ref Ref) (String, error) {
	if err := ref.Validate(); err != nil {
		return String{}, err
	}
	place, advice := "environment variable "+ref.EnvName(), "put it in one of them"
	if r.Dir != "" {
		path := filepath.Join(r.Dir, ref.Name, ref.Key)
		value, err := readBounded(path)
		switch {
		case err == nil:
			return checked(ref, "file "+path, value)
		case !errors.Is(err, fs.ErrNotExist):
			return String{}, fault.Wrap(fault.Precondition, err,
				fmt.Sprintf("secret %s: cannot use file %s", ref, path)).WithReason("secret_unreadable")
		}
		place = "file " + path + " and " + place
	} else {
		place += " (no folder of secrets is set in " + DirEnv + ")"
		advice = "set the one or the other"
	}
	if r.LookupEnv != nil {
		if value, ok := r.LookupEnv(ref.EnvName()); ok {
			return checked(ref, "environment variable "+ref.EnvName(), value)
		}
	}
	return String{}, fault.Newf(fault.Precondition, "secret %s not found: looked in %s; %s", ref, place, advice).
		WithReason("secret_missing", "ref", ref.String())
}

// ResolveKey resolves ref and decodes it with DecodeKey.
func (r *Resolver) ResolveKey(ref Ref, minBytes, maxBytes int) (Bytes, error) {
	text, err := r.Resolve(ref)
	if err != nil {
		return Bytes{}, err
	}
	key, err := DecodeKey(text, minBytes, maxBytes)
	if err != nil {
		return Bytes{}, fault.Newf(fault.Invalid, "secret %s: %s; `openssl rand -base64 %d` makes a key", ref, err, minBytes).WithReason("secret_invalid", "ref", ref.String())
	}
	return key, nil
}

// DecodeKey decodes a key that is given as base64 text, standard or URL-safe,
// padded or not. Its length must be within minBytes and maxBytes (equal for a
// key of one fixed length). Errors are Invalid and do not show the text.
func DecodeKey(text String, minBytes, maxBytes int) (Bytes, error) {
	s := strings.TrimRight(strings.TrimSpace(text.Reveal()), "=")
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	key, err := enc.Strict().DecodeString(s)
	if err != nil {
		// The cause is dropped on purpose: it quotes bytes of the text.
		return Bytes{}, fault.New(fault.Invalid, "is not base64 text")
	}
	if len(key) < minBytes || len(key) > maxBytes {
		want := fmt.Sprintf("%d to %d", minBytes, maxBytes)
		if minBytes == maxBytes {
			want = fmt.Sprint(minBytes)
		}
		return Bytes{}, fault.Newf(fault.Invalid, "has %d bytes, want %s", len(key), want)
	}
	return NewBytes(key), nil
}

func readBounded(path string) (string, error) {
	info, err := os.Stat(path) // before opening: a named pipe would block
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	return string(b), err
}

func checked(ref Ref, place, value string) (String, error) {
	if len(value) > MaxSize {
		return String{}, fault.Newf(fault.Invalid, "secret %s: %s is larger than %d bytes", ref, place, MaxSize)
	}
	value = strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
	if value == "" {
		return String{}, fault.Newf(fault.Invalid, "secret %s: %s is empty", ref, place)
	}
	return New(value), nil
}
