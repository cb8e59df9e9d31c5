package sessionid

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/caller"
)

func sealer(t *testing.T, keys ...byte) *Sealer {
	t.Helper()
	var all []secret.Bytes
	for _, k := range keys {
		all = append(all, secret.NewBytes(bytes.Repeat([]byte{k}, keyring.KeySize)))
	}
	ring, err := keyring.New(all...)
	if err != nil {
		t.Fatal(err)
	}
	return NewSealer(ring)
}

func person(subject string) *caller.Caller {
	return caller.New(caller.Claims{Issuer: "https://issuer", Subject: subject, SessionID: "s"}, secret.New("token"))
}

func TestSessionComesBackAsItWas(t *testing.T) {
	t.Parallel()
	s := sealer(t, 1)
	in := New("2025-11-25", BackendSession{"repos", "abc"}, BackendSession{"status", ""})
	in.Extra = []byte{0, 1, 2}
	id, err := s.Seal(person("alice"), "/mcp/repos", in)
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return r < 0x21 || r > 0x7e }); i >= 0 {
		t.Errorf("the id has an invisible character at %d: %q", i, id)
	}
	if strings.Contains(id, "abc") {
		t.Errorf("the id shows the backend's: %q", id)
	}
	out, err := s.Open(person("alice"), "/mcp/repos", id)
	if err != nil {
		t.Fatal(err)
	}
	in.CreatedAt = out.CreatedAt
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("session differs (-want +got):\n%s", diff)
	}
}

func flip(r rune) rune {
	if r == 'A' {
		return 'B'
	}
	return 'A'
}

func TestForeignSessionIsUnknown(t *testing.T) {
	t.Parallel()
	s := sealer(t, 1)
	id, err := s.Seal(person("alice"), "/mcp/repos", New("", BackendSession{"repos", "abc"}))
	if err != nil {
		t.Fatal(err)
	}
	value, err := s.SealValue("event-id", person("alice"), "/mcp/repos", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	last := id[:len(id)-1]
	tests := map[string]struct {
		sealer       *Sealer
		who          *caller.Caller
		endpoint, id string
	}{
		"another person":  {s, person("bob"), "/mcp/repos", id},
		"anonymous":       {s, caller.AnonymousCaller(), "/mcp/repos", id},
		"other endpoint":  {s, person("alice"), "/mcp", id},
		"other key":       {sealer(t, 2), person("alice"), "/mcp/repos", id},
		"other purpose":   {s, person("alice"), "/mcp/repos", value},
		"cut":             {s, person("alice"), "/mcp/repos", last},
		"changed":         {s, person("alice"), "/mcp/repos", id[:60] + strings.Map(flip, id[60:61]) + id[61:]},
		"empty":           {s, person("alice"), "/mcp/repos", ""},
		"not base64":      {s, person("alice"), "/mcp/repos", "%%%"},
		"with line break": {s, person("alice"), "/mcp/repos", id[:8] + "\n" + id[8:]},
		"oversized":       {s, person("alice"), "/mcp/repos", strings.Repeat("A", MaxLength+1)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tt.sealer.Open(tt.who, tt.endpoint, tt.id)
			if fault.KindOf(err) != fault.NotFound || fault.ReasonOf(err) != ReasonUnknown {
				t.Errorf("error %v, want NotFound/%s", err, ReasonUnknown)
			}
		})
	}
}

func TestSessionSurvivesTheRotationOfKeys(t *testing.T) {
	t.Parallel()
	id, err := sealer(t, 1).Seal(person("alice"), "/mcp", New(""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealer(t, 2, 1).Open(person("alice"), "/mcp", id); err != nil {
		t.Errorf("after rotation: %v", err)
	}
}

func TestTooLargeSessionIsToldApart(t *testing.T) {
	t.Parallel()
	s := sealer(t, 1)
	_, err := s.Seal(person("alice"), "/mcp", New("", BackendSession{"repos", strings.Repeat("x", MaxLength)}))
	if fault.ReasonOf(err) != ReasonTooLarge {
		t.Errorf("error %v, want %s", err, ReasonTooLarge)
	}
}

func FuzzUnmarshal(f *testing.F) {
	good, err := New("2025-11-25", BackendSession{"a", "b"}).marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, ok := unmarshal(raw)
		if !ok {
			return
		}
		again, err := s.marshal()
		if err != nil {
			t.Fatal(err)
		}
		if back, ok := unmarshal(again); !ok || !cmp.Equal(s, back) {
			t.Fatalf("%+v became %+v", s, back)
		}
	})
}
