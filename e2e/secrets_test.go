package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// secretFields are the names under which secrets travel in forms and JSON.
var secretFields = []string{"access_token", "refresh_token", "id_token", "code", "code_verifier", "client_secret", "subject_token", "actor_token", "password", "nonce", "registration_access_token"}

// needles collects secrets, each with the place where it was seen.
type needles map[string]string

func (n needles) add(where, value string) {
	if len(value) >= 12 { // shorter ones would be found by chance
		n[value] = where
	}
}

// addForm adds the secret fields of a form or a query.
func (n needles) addForm(where, encoded string) {
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return
	}
	for _, field := range secretFields {
		for _, v := range values[field] {
			n.add(where+" "+field, v)
		}
	}
}

// addJSON adds the secret fields of a JSON document.
func (n needles) addJSON(where string, body []byte) {
	var document map[string]any
	if json.Unmarshal(body, &document) != nil {
		return
	}
	for _, field := range secretFields {
		if v, ok := document[field].(string); ok {
			n.add(where+" "+field, v)
		}
	}
}

// addURL adds the secret fields of a URL's query, and the state of a leg. The state
// that a client sends us is its own, goes back to it as it is, and is no secret of
// ours.
func (n needles) addURL(where, text string) {
	u, err := url.Parse(text)
	if err != nil {
		return
	}
	n.addForm(where, u.RawQuery)
	ports := shared.stack.Ports()
	if u.Host == local(ports.Corp) || u.Host == local(ports.Octohub) {
		n.add(where+" state", u.Query().Get("state"))
	}
}

// addHeader adds what Authorization, cookies, session ids and redirects carry.
func (n needles) addHeader(where string, header http.Header) {
	for _, line := range header.Values("Cookie") {
		if cookies, err := http.ParseCookie(line); err == nil {
			for _, c := range cookies {
				n.add(where+" cookie", c.Value)
			}
		}
	}
	for _, line := range header.Values("Set-Cookie") {
		if c, err := http.ParseSetCookie(line); err == nil {
			n.add(where+" cookie", c.Value)
		}
	}
	n.add(where+" Mcp-Session-Id", header.Get("Mcp-Session-Id"))
	n.addURL(where, header.Get("Location"))
	for _, v := range header.Values("Authorization") {
		scheme, credential, _ := strings.Cut(v, " ")
		n.add(where+" Authorization", credential)
		if raw, err := base64.StdEncoding.DecodeString(credential); err == nil && strings.EqualFold(scheme, "Basic") {
			_, password, _ := strings.Cut(string(raw), ":")
			n.add(where+" Basic password", password)
		}
	}
}

// collect gathers every secret that was on the wire, between the services and what
// they call and between the client or the person and us, or in the secrets' folders.
func collect(t *testing.T, client *recorder, logins ...*journey.Login) needles {
	t.Helper()
	n := needles{}
	recorders := maps.Clone(shared.recorders)
	if recorders == nil {
		recorders = map[string]*recorder{}
	}
	recorders["client"] = client
	for name, r := range recorders {
		for _, e := range r.seen("") {
			where := name + " " + e.Method + " " + strings.Split(e.URL, "?")[0]
			n.addURL(where, e.URL)
			n.addHeader(where, e.RequestHeader)
			n.addHeader(where, e.ResponseHeader)
			n.addForm(where, string(e.RequestBody))
			n.addForm(where, string(e.ResponseBody))
			n.addJSON(where, e.ResponseBody)
		}
	}
	for _, l := range logins {
		n.add("client access_token", l.Token.AccessToken)
		n.add("client refresh_token", l.Token.RefreshToken)
	}
	if shared.stack.Attached() {
		return n
	}
	err := filepath.WalkDir(filepath.Dir(shared.stack.SecretsDir("gateway")), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		value, err := os.ReadFile(path)
		n.add("secret "+filepath.Base(filepath.Dir(path)), strings.TrimSpace(string(value)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// forms are the ways in which a secret could lie in a column.
func forms(value string) map[string][]byte {
	raw := []byte(value)
	f := map[string][]byte{"raw": raw, "hex": []byte(hex.EncodeToString(raw)), "url-encoded": []byte(url.QueryEscape(value))}
	if decoded, err := url.QueryUnescape(value); err == nil {
		f["url-decoded"] = []byte(decoded)
	}
	// Base64 of a text depends on where in it the value starts: three phases, without the letters that its neighbours change.
	for name, enc := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
		for phase := range 3 {
			text := enc.EncodeToString(append(bytes.Repeat([]byte{0}, phase), raw...))
			text = strings.TrimRight(text, "=")
			start := []int{0, 2, 3}[phase]
			f[fmt.Sprintf("%s+%d", name, phase)] = []byte(text[start : len(text)-2])
		}
	}
	if decoded, err := base64.StdEncoding.DecodeString(value); err == nil && len(decoded) >= 16 {
		f["decoded"] = decoded
	}
	return f
}

// finding is a secret in a column.
type finding struct{ column, secret, form string }

// search reads every column of every table as raw bytes and looks for all forms.
func search(ctx context.Context, conn *pgx.Conn, secrets needles) (found []finding, columns, rows int, err error) {
	type column struct{ Schema, Table, Name string }
	result, err := conn.Query(ctx, `SELECT c.table_schema, c.table_name, c.column_name
		FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3`)
	if err != nil {
		return nil, 0, 0, err
	}
	all, err := pgx.CollectRows(result, pgx.RowToStructByPos[column])
	if err != nil {
		return nil, 0, 0, err
	}
	for _, c := range all {
		// The bytes of a bytea as they are, and the text of everything else.
		query := fmt.Sprintf(`SELECT CASE WHEN pg_typeof(x)::text = 'bytea' THEN x::text::bytea ELSE convert_to(x::text, 'UTF8') END FROM (SELECT %s AS x FROM %s) t WHERE x IS NOT NULL`,
			pgx.Identifier{c.Name}.Sanitize(), pgx.Identifier{c.Schema, c.Table}.Sanitize())
		result, err := conn.Query(ctx, query)
		if err != nil {
			return nil, 0, 0, fmt.Errorf("%v: %w", c, err)
		}
		values, err := pgx.CollectRows(result, pgx.RowTo[[]byte])
		if err != nil {
			return nil, 0, 0, fmt.Errorf("%v: %w", c, err)
		}
		for _, value := range values {
			rows++
			for secret, where := range secrets {
				for form, bytesOf := range forms(secret) {
					if bytes.Contains(value, bytesOf) {
						found = append(found, finding{c.Schema + "." + c.Table + "." + c.Name, where, form})
					}
				}
			}
		}
	}
	return found, len(all), rows, nil
}

func TestNoSecretIsReadableInTheDatabase(t *testing.T) {
	// Not parallel: it looks at everything that the tests before it left, and plants a table.
	ctx := t.Context()
	p := newPerson(t)
	wire := &recorder{}
	recorded := func(o *browse.Options) { o.Transport = wire }
	client := newClient(t)
	client.HTTP = &http.Client{Transport: wire, Timeout: 30 * time.Second}
	login, err := client.Login(ctx, p.browser(t, recorded))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range eras {
		checkCalls(t, connect(t, login, journey.ConnectOptions{ProtocolVersion: version}), p)
	}
	// A login that is under way: corp's tokens are staged, octohub's leg has begun.
	stop := errors.New("closed the browser")
	if _, err := newPerson(t).browser(t, recorded, func(o *browse.Options) {
		o.OnPage = func(page browse.Page) error {
			if page.URL.Host == local(shared.stack.Ports().Octohub) {
				return stop
			}
			return nil
		}
	}).Walk(ctx, client.Authorize().URL, client.RedirectURI); !errors.Is(err, stop) {
		t.Fatalf("the login that is to be under way: %v", err)
	}
	fresh, err := login.Client.Refresh(ctx, login.Token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	secrets := collect(t, wire, login, &journey.Login{Token: fresh})
	fields := []string{"access_token", "refresh_token", "code", "code_verifier", "state", "nonce", "cookie", "Mcp-Session-Id"}
	if !shared.stack.Attached() { // what the services say to others is out of sight there
		fields = append(fields, "id_token", "Authorization", "Basic password")
	}
	for _, field := range fields {
		seen := false
		for _, where := range secrets {
			seen = seen || strings.HasSuffix(where, field)
		}
		if !seen {
			t.Errorf("no %s was seen on the wire: the search would prove nothing about it", field)
		}
	}

	conn, err := pgx.Connect(ctx, shared.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	// First that the search finds what is there, in each form and both kinds of column.
	if _, err := conn.Exec(ctx, `CREATE TABLE public.control (b bytea, j jsonb)`); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), `DROP TABLE public.control`) }()
	planted := plantable()
	var controls int
	for form, value := range forms(planted) {
		if strings.Contains(form, "+") && !strings.HasSuffix(form, "+0") {
			value = []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", int(form[len(form)-1]-'0')) + planted)))
			if strings.HasPrefix(form, "base64url") {
				value = []byte(base64.URLEncoding.EncodeToString([]byte(strings.Repeat("x", int(form[len(form)-1]-'0')) + planted)))
			}
		}
		document, err := json.Marshal(map[string]string{"t": string(value)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, `INSERT INTO public.control VALUES ($1, $2)`, append([]byte{0, 1, 0xff}, value...), document); err != nil {
			t.Fatal(err)
		}
		controls++
	}
	found, _, _, err := search(ctx, conn, needles{planted: "planted"})
	if err != nil {
		t.Fatal(err)
	}
	hits := map[string]int{}
	for _, f := range found {
		hits[f.column]++
	}
	if hits["public.control.b"] < controls || hits["public.control.j"] < controls {
		t.Fatalf("the search found %v of %d planted secrets in each column", hits, controls)
	}
	if _, err := conn.Exec(ctx, `TRUNCATE public.control`); err != nil {
		t.Fatal(err)
	}

	found, columns, rows, err := search(ctx, conn, secrets)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d secrets, %d columns, %d values", len(secrets), columns, rows)
	if columns < 20 || rows < 100 {
		t.Errorf("only %d columns and %d values were read", columns, rows)
	}
	for _, f := range found {
		t.Errorf("%s holds the %s, %s", f.column, f.secret, f.form)
	}

	if shared.stack.Attached() {
		return // files, logs and spans are somebody else's
	}
	checkRawBytes(t, conn, secrets)
	// The logs and the spans are read by more people than the database.
	logs, err := filepath.Glob(filepath.Join(shared.stack.LogDir(), "*.log"))
	if err != nil || len(logs) < 8 {
		t.Fatalf("logs: %v, %v", logs, err)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for secret, where := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds the %s", filepath.Base(log), where)
			}
		}
	}
	for _, s := range shared.collector.all() {
		for name, value := range s.Attributes {
			for secret, where := range secrets {
				if strings.Contains(value, secret) || strings.Contains(s.Name, secret) {
					t.Errorf("span %s of %s, attribute %s, holds the %s", s.Name, s.Service, name, where)
				}
			}
		}
	}
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
