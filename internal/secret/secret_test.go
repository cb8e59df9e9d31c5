package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

const value = "hunter2-hunter2"

// holder has a secret where fmt cannot call methods.
type holder struct {
	Name   string
	hidden secret.String
	bytes  secret.Bytes
	Shown  secret.String
}

func TestASecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	h := holder{Name: "n", hidden: secret.New(value), bytes: secret.NewBytes([]byte(value)), Shown: secret.New(value)}
	values := []any{h.hidden, h.bytes, &h.hidden, &h.bytes, h, &h, []holder{h}, map[string]holder{"k": h}, []secret.String{h.hidden}, any(h.Shown)}

	var out bytes.Buffer
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%10.3v"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
		if err := yaml.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	got := out.String()
	for _, form := range []string{
		value, "hunter2",
		fmt.Sprintf("%x", value), strings.ToUpper(fmt.Sprintf("%x", value)),
		fmt.Sprintf("%d", []byte(value)), base64.StdEncoding.EncodeToString([]byte(value)),
	} {
		if strings.Contains(got, form) {
			t.Errorf("%q was printed", form)
		}
	}
	if !strings.Contains(got, secret.Redacted) {
		t.Error("nothing says that a value was redacted")
	}
}

func TestRevealGivesTheValueBack(t *testing.T) {
	t.Parallel()
	if got := secret.New(value).Reveal(); got != value {
		t.Errorf("Reveal() = %q", got)
	}
	var s secret.String
	if s.Reveal() != "" || !s.IsZero() || !secret.NewBytes(nil).IsZero() || secret.NewBytes(nil).Reveal() != nil {
		t.Error("the zero value is not empty")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) || secret.New("a").Equal(secret.New("")) {
		t.Error("Equal does not compare values")
	}
}

func TestAReferenceCannotLeaveItsFolder(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 254)
	for _, bad := range []string{
		"", "/", "a", "a/", "/b", "../b", "a/..", "a/.", "a/../b", "a/b/c", "a//b", "./a", "a/.hidden", "a\\b/c",
		"A/b", "a_b/c", "-a/b", "a-/b", "a..b/c", ".a/b", "a/b\x00", "a/b c", "a/b\n", "\n/b", "a/ä", long + "/b", "a/" + long,
	} {
		if r, err := secret.ParseRef(bad); err == nil {
			t.Errorf("ParseRef(%q) = %v", bad, r)
		} else if fault.KindOf(err) != fault.Invalid {
			t.Errorf("ParseRef(%q): kind %s", bad, fault.KindOf(err))
		}
	}
	for _, good := range []string{"a/b", "corp-idp/client-secret", "a.b-c.d/K_e.y-1", "0/0", "octohub/tls.key"} {
		if r, err := secret.ParseRef(good); err != nil || r.String() != good {
			t.Errorf("ParseRef(%q) = %v, %v", good, r, err)
		}
	}
}

func TestALiteralSecretGivenAsReferenceIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, s := range []string{value, value + "/" + value + "!"} {
		if _, err := secret.ParseRef(s); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error = %v", err)
		}
	}
}

func TestEnvironmentName(t *testing.T) {
	t.Parallel()
	r := secret.Ref{Name: "corp-idp.eu", Key: "client-secret"}
	if got := r.EnvName(); got != "CORP_IDP_EU_CLIENT_SECRET" {
		t.Errorf("EnvName() = %q", got)
	}
}

func resolver(t *testing.T, files, env map[string]string) *secret.Resolver {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &secret.Resolver{Dir: dir, LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	ref := secret.Ref{Name: "corp-idp", Key: "client-secret"}
	big := strings.Repeat("x", secret.MaxSize+1)
	tests := map[string]struct {
		files, env map[string]string
		want       string
		wantErr    string
	}{
		"a mounted file":                       {files: map[string]string{"corp-idp/client-secret": value}, want: value},
		"an editor's newline is no part of it": {files: map[string]string{"corp-idp/client-secret": value + "\n"}, want: value},
		"one newline only":                     {files: map[string]string{"corp-idp/client-secret": value + "\n\n"}, want: value + "\n"},
		"the environment":                      {env: map[string]string{"CORP_IDP_CLIENT_SECRET": value}, want: value},
		"the file wins": {
			files: map[string]string{"corp-idp/client-secret": value},
			env:   map[string]string{"CORP_IDP_CLIENT_SECRET": "other"}, want: value,
		},
		"as large as allowed": {files: map[string]string{"corp-idp/client-secret": big[:secret.MaxSize]}, want: big[:secret.MaxSize]},
		"too large":           {files: map[string]string{"corp-idp/client-secret": big}, wantErr: "larger than"},
		"too large in env":    {env: map[string]string{"CORP_IDP_CLIENT_SECRET": big}, wantErr: "larger than"},
		"empty": {
			files: map[string]string{"corp-idp/client-secret": "\n"},
			env:   map[string]string{"CORP_IDP_CLIENT_SECRET": value}, wantErr: "is empty",
		},
		"a folder":            {files: map[string]string{"corp-idp/client-secret/x": value}, wantErr: "cannot use file"},
		"nowhere: both named": {wantErr: "environment variable CORP_IDP_CLIENT_SECRET"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := resolver(t, tt.files, tt.env).Resolve(ref)
			if tt.wantErr == "" {
				if err != nil || got.Reveal() != tt.want {
					t.Fatalf("got %d bytes, %v", len(got.Reveal()), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) || strings.Contains(fault.Detail(err), "hunter2") {
				t.Errorf("error = %v, want one with %q and without the value", fault.Detail(err), tt.wantErr)
			}
		})
	}
}

func TestAMissingSecretNamesBothPlaces(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil, nil)
	_, err := r.Resolve(secret.Ref{Name: "a", Key: "b"})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(r.Dir, "a", "b")) || !strings.Contains(err.Error(), "A_B") ||
		fault.ReasonOf(err) != "secret_missing" {
		t.Errorf("error = %v", err)
	}
	r.Dir = ""
	if _, err = r.Resolve(secret.Ref{Name: "a", Key: "b"}); err == nil || !strings.Contains(err.Error(), secret.DirEnv) {
		t.Errorf("error without a folder = %v", err)
	}
}

func TestSymbolicLinksOfAKubernetesMountAreFollowed(t *testing.T) {
	t.Parallel()
	r := resolver(t, map[string]string{"corp/..2026/key": value}, nil)
	for link, target := range map[string]string{"corp/..data": "..2026", "corp/key": "..data/key"} {
		if err := os.Symlink(target, filepath.Join(r.Dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.Resolve(secret.Ref{Name: "corp", Key: "key"}); err != nil || got.Reveal() != value {
		t.Errorf("Resolve = %v", err)
	}
}

func TestDecodeKeyTakesEveryUsualBase64(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{0xfb, 0xff, 0x01}, 11)[:32]
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		got, err := secret.DecodeKey(secret.New(" "+enc.EncodeToString(key)+"\n"), 32, 32)
		if err != nil || !bytes.Equal(got.Reveal(), key) {
			t.Errorf("DecodeKey: %v", err)
		}
	}
	for name, tt := range map[string]struct {
		text     string
		min, max int
		want     string
	}{
		"short":       {base64.StdEncoding.EncodeToString(key[:31]), 32, 32, "has 31 bytes, want 32"},
		"long":        {base64.StdEncoding.EncodeToString(append(key, 1)), 32, 32, "has 33 bytes, want 32"},
		"range":       {base64.StdEncoding.EncodeToString(key[:8]), 32, 64, "has 8 bytes, want 32 to 64"},
		"hexadecimal": {"zz!!", 1, 32, "is not base64 text"},
		"mixed":       {"-_+/", 1, 32, "is not base64 text"},
	} {
		if _, err := secret.DecodeKey(secret.New(tt.text), tt.min, tt.max); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error = %v, want %q", name, err, tt.want)
		}
	}
}

func TestResolveKeyNamesTheReference(t *testing.T) {
	t.Parallel()
	r := resolver(t, map[string]string{"keys/kek": "c2hvcnQ="}, nil)
	_, err := r.ResolveKey(secret.Ref{Name: "keys", Key: "kek"}, 32, 32)
	if err == nil || err.Error() != "secret keys/kek: has 5 bytes, want 32; `openssl rand -base64 32` makes a key" {
		t.Errorf("error = %v", err)
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"a/b", "a/../b", "../..", "corp-idp/client-secret"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := secret.ParseRef(s)
		if err != nil {
			return
		}
		if joined := filepath.Join("/base", r.Name, r.Key); filepath.Dir(filepath.Dir(joined)) != "/base" {
			t.Errorf("%q leads to %s", s, joined)
		}
	})
}
