package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/pgcluster"
)

// prefix is how many bytes of a form lead to it: fewer than the shortest form has.
const prefix = 8

// haystack looks for many values at once in many bytes.
type haystack struct {
	byPrefix map[uint64][]straw
	maybe    [1 << 20]bool // by some bits of the prefix, for what is looked up most
	read     int
	found    map[finding]int
}

// straw is one form of one secret.
type straw struct {
	bytes        []byte
	secret, form string
}

func newHaystack(secrets needles) *haystack {
	h := &haystack{byPrefix: map[uint64][]straw{}, found: map[finding]int{}}
	for value, where := range secrets {
		for form, text := range rawForms(value) {
			if len(text) < prefix {
				continue
			}
			key := binary.LittleEndian.Uint64(text)
			h.byPrefix[key] = append(h.byPrefix[key], straw{text, where, form})
			h.maybe[bits(key)] = true
		}
	}
	return h
}

// bits are some of a prefix that tell texts apart.
func bits(key uint64) uint64 { return key * 0x9e3779b97f4a7c15 >> 44 }

// rawForms are the forms in which a secret could lie in a column, and how a dump shows
// the bytes of some.
func rawForms(value string) map[string][]byte {
	all := forms(value)
	if decoded, ok := all["decoded"]; ok {
		all["decoded, in hex"] = []byte(hex.EncodeToString(decoded))
	}
	return all
}

// search looks at all bytes of text, which is at that place.
func (h *haystack) search(place string, text []byte) {
	h.read += len(text)
	for i := 0; i+prefix <= len(text); i++ {
		key := binary.LittleEndian.Uint64(text[i:])
		if !h.maybe[bits(key)] {
			continue
		}
		for _, s := range h.byPrefix[key] {
			if bytes.HasPrefix(text[i:], s.bytes) {
				h.found[finding{place, s.secret, s.form}]++
			}
		}
	}
}

// at are the findings at a place.
func (h *haystack) at(place string) map[string]int {
	forms := map[string]int{}
	for f, n := range h.found {
		if f.column == place {
			forms[f.form] += n
		}
	}
	return forms
}

// The places where a database's contents lie about.
const (
	dataFiles = "data files"
	writeLog  = "the write-ahead log"
	dumped    = "a dump"
)

// searchDatabase looks through everything that Postgres has on disk, and a dump.
func (h *haystack) searchDatabase(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), `CHECKPOINT`); err != nil { // what is in memory only goes to the files
		t.Fatal(err)
	}
	dir, err := stack.PostgresDir(filepath.Dir(shared.stack.LogDir()))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) { // Postgres is running
			return nil
		}
		place := dataFiles
		if strings.Contains(path, string(filepath.Separator)+"pg_wal"+string(filepath.Separator)) {
			place = writeLog
		}
		h.search(place, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.search(dumped, dump(t))
}

func dump(t *testing.T) []byte {
	t.Helper()
	bin, err := pgcluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_dump"), "--dbname", shared.stack.DatabaseURL())
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v: %s", err, problem.Bytes())
	}
	return out
}

// plantable is a value that looks like a secret and is none: what was planted stays in
// the write-ahead log for a while.
func plantable() string { return base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())) }

// plant stores a value in each form, several times (a page of the log may end in the
// midst of one), too short to be compressed or put elsewhere.
func plant(t *testing.T, conn *pgx.Conn, value string) {
	t.Helper()
	for _, form := range forms(value) {
		document, err := json.Marshal(map[string]string{"t": string(form)})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := conn.Exec(t.Context(), `INSERT INTO public.planted VALUES ($1, $2)`, append([]byte{0, 1, 0xff}, form...), document); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkRawBytes looks for secrets where a backup or a stolen disk would show them, once
// it has found planted ones there.
func checkRawBytes(t *testing.T, conn *pgx.Conn, secrets needles) {
	t.Helper()
	ctx := t.Context()
	planted := plantable()
	if _, err := conn.Exec(ctx, `CREATE TABLE public.planted (b bytea, j jsonb)`); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), `DROP TABLE public.planted`) }()
	plant(t, conn, planted)
	control := newHaystack(needles{planted: "planted"})
	control.searchDatabase(t, conn)
	for _, place := range []string{dataFiles, writeLog, dumped} {
		found := control.at(place)
		for form := range forms(planted) {
			if form == "decoded" && place == dumped { // no text
				form = "decoded, in hex"
			}
			if found[form] == 0 {
				t.Fatalf("the search did not find a planted secret in %s, %s: it would prove nothing", place, form)
			}
		}
	}

	h := newHaystack(secrets)
	h.searchDatabase(t, conn)
	t.Logf("%d secrets, %d MiB of data files, write-ahead log and dump", len(secrets), h.read>>20)
	if h.read < 20<<20 {
		t.Errorf("only %d bytes were read", h.read)
	}
	for f, n := range h.found {
		t.Errorf("%s: %d times the %s, %s", f.column, n, f.secret, f.form)
	}
}
