package connections

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestTheServedOpenAPIDocumentIsTheGeneratedOne(t *testing.T) {
	t.Parallel()
	generated, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "api", "tokenbroker.swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(generated, openAPI) {
		t.Error("openapi.json is not the generated document: run `go generate ./internal/connections`")
	}
}

func TestACursorComesBackAsItWas(t *testing.T) {
	t.Parallel()
	want := store.Cursor{CreatedAt: time.Date(2026, 7, 28, 12, 0, 0, 123456000, time.UTC), ID: "usr_abc"}
	got, err := parseCursor(userCursor, formatCursor(userCursor, want))
	if err != nil || !got.CreatedAt.Equal(want.CreatedAt) || got.ID != want.ID {
		t.Errorf("%+v, %v", got, err)
	}
	at := store.ConnectionCursor{Provider: "a provider+%", Cursor: want}
	if got, err := parseConnectionCursor(formatConnectionCursor(at)); err != nil || got.Provider != at.Provider || got.ID != want.ID || !got.CreatedAt.Equal(want.CreatedAt) {
		t.Errorf("%+v, %v", got, err)
	}
	if id, err := parseRecordCursor(formatRecordCursor(42)); err != nil || id != 42 {
		t.Errorf("%d, %v", id, err)
	}
}

func TestCursorsOfAnotherListAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := parseRecordCursor(formatCursor(userCursor, store.Cursor{ID: "x"})); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a cursor of users pages audit records: %v", err)
	}
	if _, err := parseCursor(sessionCursor, formatCursor(userCursor, store.Cursor{ID: "x"})); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a cursor of users pages sessions: %v", err)
	}
	if _, err := parseCursor(userCursor, formatRecordCursor(1)); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a cursor of audit records pages users: %v", err)
	}
}

func FuzzCursors(f *testing.F) {
	f.Add(formatCursor(userCursor, store.Cursor{CreatedAt: time.Unix(1, 0), ID: "usr_a"}))
	f.Add(formatConnectionCursor(store.ConnectionCursor{Provider: "corp", Cursor: store.Cursor{CreatedAt: time.Unix(1, 0), ID: "con_a"}}))
	f.Add(formatRecordCursor(7))
	f.Add("!")
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := parseCursor(userCursor, token); err == nil && token != "" && c.ID == "" {
			t.Errorf("%q is a cursor without an id", token)
		}
		if c, err := parseConnectionCursor(token); err == nil && token != "" && c.ID == "" {
			t.Errorf("%q is a cursor without an id", token)
		}
		if id, err := parseRecordCursor(token); err == nil && token != "" && id < 1 {
			t.Errorf("%q is record %d", token, id)
		}
	})
}
