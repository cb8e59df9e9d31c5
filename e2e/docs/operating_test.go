package docs

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/pgcluster"
)

// operator follows the pages about a house that runs, in a clone in which `make up` does.
type operator struct {
	reader
	stack *stack.Stack
	// kept are functions and variables that a page's commands leave for those after them.
	kept string
	// real are the ids that stand for those of the page, or for words such as USER_ID.
	real map[string]string
}

// Whoever follows these pages is in a hurry, or has lost something.
func TestThePagesAboutOperatingCanBeFollowed(t *testing.T) {
	t.Parallel()
	needPrograms(t, "bash", "openssl", "curl")
	o := newOperator(t)
	o.call(t, o.logIn(t))
	o.calls(t)
	o.backupAndRestore(t)
	o.operations(t)
}

// newOperator has a stack in the folder .run of a clone, and grpcurl at the version of the page.
func newOperator(t *testing.T) *operator {
	t.Helper()
	clone := t.TempDir()
	for dir, packages := range map[string][]string{
		"../..":               {"./services/authserver/cmd/authserver", "./services/tokenbroker/cmd/tokenbroker", "./services/gateway/cmd/gateway", "./examples/cmd/examples"},
		"../../tools/grpcurl": {"github.com/fullstorydev/grpcurl/cmd/grpcurl"},
	} {
		build := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", filepath.Join(clone, "bin") + string(filepath.Separator)}, packages...)...)
		build.Dir = dir
		if dir != "../.." {
			build.Env = append(os.Environ(), "GOWORK=off")
		}
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ports, err := stack.FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Start(t.Context(), stack.Config{Dir: filepath.Join(clone, ".run"), BinDir: filepath.Join(clone, "bin"), Ports: ports, Throwaway: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	programs, err := pgcluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	// backup.md is about a deployment as running.md makes it.
	for _, service := range []string{"authserver", "tokenbroker"} {
		if err := os.MkdirAll(filepath.Join(clone, "secrets", service), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(clone, ".run", "database-url", service), filepath.Join(clone, "secrets", service, "database-url")); err != nil {
			t.Fatal(err)
		}
	}
	o := &operator{stack: s, real: map[string]string{}, reader: reader{
		clone: clone, dir: clone,
		env: append(os.Environ(), "PATH="+strings.Join([]string{filepath.Join(clone, "bin"), os.Getenv("PATH"), programs}, string(filepath.ListSeparator))),
		ports: map[string]int{
			"8000": ports.Gateway, "8080": ports.Authserver, "9090": ports.Broker, "9091": ports.BrokerREST, "5556": ports.Corp, "5557": ports.Octohub,
		},
	}}
	o.env = append(o.env, o.superuser(t)...)
	return o
}

// superuser is the environment by which PostgreSQL's programs find the stack's server.
func (o *operator) superuser(t *testing.T) []string {
	t.Helper()
	text, err := o.bash(t.Context(), `psql "$(cat .run/database-url/superuser)" -Atc "
		SELECT split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user"`)
	parts := strings.Split(strings.TrimSpace(text), "|")
	if err != nil || len(parts) != 3 {
		t.Fatalf("%v %q", err, text)
	}
	return []string{"PGHOST=" + strings.TrimSpace(parts[0]), "PGPORT=" + parts[1], "PGUSER=" + parts[2]}
}

// logIn logs alice in, at both providers.
func (o *operator) logIn(t *testing.T) *journey.Login {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second}
	found, err := journey.Discover(t.Context(), client, o.stack.MCPURL())
	if err != nil {
		t.Fatal(err)
	}
	registered, err := found.Register(t.Context(), client, "Desk assistant", "http://127.0.0.1:33418/callback")
	if err != nil {
		t.Fatal(err)
	}
	alice, err := browse.New(browse.Options{Account: browse.Account{Username: "alice", Password: "alice-password"}})
	if err != nil {
		t.Fatal(err)
	}
	login, err := registered.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	return login
}

// call calls a tool with each of alice's accounts.
func (o *operator) call(t *testing.T, login *journey.Login) {
	t.Helper()
	session, err := login.Connect(t.Context(), journey.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"repos_whoami", "payroll_whoami"} {
		if _, err := journey.Call(t.Context(), session, tool, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
}

// calls follows the page about calls by hand.
func (o *operator) calls(t *testing.T) {
	t.Helper()
	version := regexp.MustCompile(`go install github\.com/fullstorydev/grpcurl/cmd/grpcurl@(v[\d.]+)\n`)
	shown := 0
	for _, b := range fenced(t, "grpc.md") {
		if m := version.FindStringSubmatch(b.text); m != nil {
			if !strings.Contains(read(t, filepath.Join(root, "tools", "grpcurl", "go.mod")), "github.com/fullstorydev/grpcurl "+m[1]+" ") {
				t.Errorf("grpc.md installs grpcurl %s, and tools/grpcurl has another one", m[1])
			}
			b.text = version.ReplaceAllString(b.text, "")
		}
		shown += o.follow(t, b)
	}
	if shown < 15 {
		t.Errorf("only %d commands with their output were found in grpc.md", shown)
	}
}

// backupAndRestore follows the page about backups through the losses that it is about.
func (o *operator) backupAndRestore(t *testing.T) {
	t.Helper()
	before := o.logIn(t)
	sections := map[string][]fence{}
	for _, b := range fenced(t, "backup.md") {
		sections[b.section] = append(sections[b.section], b)
	}
	for section, blocks := range map[string]int{"Back up": 1, "Restore": 2, "A lost key-encryption key": 2, "A lost signing key": 1} {
		if len(sections[section]) != blocks {
			t.Fatalf("backup.md has %d blocks about %q, want %d", len(sections[section]), section, blocks)
		}
	}
	o.follow(t, sections["Back up"][0])

	o.stop(t)
	o.must(t, "dropdb chatelaine")
	for _, b := range sections["Restore"] {
		o.follow(t, b)
	}
	o.start(t)
	if _, err := before.Client.Refresh(t.Context(), before.Token.RefreshToken); err == nil {
		t.Error("a session from before the restore goes on, though all were ended")
	}
	o.logIn(t)

	key := filepath.Join(o.stack.SecretsDir("tokenbroker"), "tokenbroker-kek", "key")
	o.stop(t)
	o.must(t, "openssl rand -base64 32 > "+key)
	refused, lost := sections["A lost key-encryption key"][0].text, sections["A lost key-encryption key"][1]
	if err := o.stack.StartProcess(t.Context(), "tokenbroker"); err == nil {
		t.Error("the broker starts without the key of what is stored")
	}
	log := read(t, o.stack.Log("tokenbroker"))
	m := regexp.MustCompile(`key-encryption key ([0-9a-f]{16}) [^"]*`).FindStringSubmatch(log)
	if m == nil || masked(m[0]) != masked(strings.TrimSpace(refused)) {
		t.Fatalf("the broker says\n%s\nand backup.md shows\n%s", log, refused)
	}
	lost.text = regexp.MustCompile(`key=[0-9a-f]{16}`).ReplaceAllString(lost.text, "key="+m[1])
	o.follow(t, lost)
	o.start(t)
	login := o.logIn(t)

	o.stop(t)
	o.follow(t, sections["A lost signing key"][0])
	o.start(t)
	if _, err := login.Client.Refresh(t.Context(), login.Token.RefreshToken); err != nil {
		t.Errorf("a client does not go on after its signing key was replaced: %v", err)
	}
}

// operations follows the page about looking inside, with alice's session.
func (o *operator) operations(t *testing.T) {
	t.Helper()
	login := o.logIn(t)
	// The first step of the change of keys: there is a new one.
	second := filepath.Join(o.stack.SecretsDir("tokenbroker"), "tokenbroker-kek-2")
	o.must(t, "mkdir "+second+" && openssl rand -base64 32 > "+second+"/key")
	blocks := fenced(t, "operations.md")
	o.kept = ""
	shown := o.follow(t, blocks[0])
	find := func(command, pattern string) string {
		out, err := o.bash(t.Context(), o.mapped(o.kept+command))
		m := regexp.MustCompile(pattern).FindStringSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return m[1]
	}
	user := find("rest https://localhost:9091/v1/users", `"userId":\s*"(usr_\w+)"`)
	o.real = map[string]string{
		"USER_ID":       user,
		"CONNECTION_ID": find("rest https://localhost:9091/v1/users/"+user+"/connections", `"connectionId":\s*"(con_\w+)"[^}]*"provider":\s*"octohub"`),
		"SESSION_ID":    login.Claims.SessionID,
		"TRACE_ID":      find("rest https://localhost:9091/v1/audit-records", `"traceId":\s*"([0-9a-f]{32})"`),
	}
	for _, b := range blocks[1:] {
		shown += o.follow(t, b)
	}
	if shown < 3 {
		t.Errorf("only %d commands with their output were found in operations.md", shown)
	}
}

// parts are stopped in the order in which requests come in.
var parts = []string{"gateway", "authserver", "tokenbroker"}

func (o *operator) stop(t *testing.T) {
	t.Helper()
	for _, name := range parts {
		if err := o.stack.StopProcess(name, false); err != nil {
			t.Fatal(err)
		}
	}
}

func (o *operator) start(t *testing.T) {
	t.Helper()
	for _, name := range parts {
		if err := o.stack.StartProcess(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

func (o *operator) must(t *testing.T, script string) string {
	t.Helper()
	out, err := o.bash(t.Context(), script)
	if err != nil {
		if failed := new(exec.ExitError); errors.As(err, &failed) {
			out += string(failed.Stderr)
		}
		t.Fatalf("%v:\n%s\n%s", err, script, out)
	}
	return out
}

// fence is a block of a page: the heading above it, its language, its text, and, for commands
// that are followed by a block without a language, what that shows.
type fence struct{ section, language, text, output string }

var fenceOrHeading = regexp.MustCompile("(?ms)^## ([^\n]+)$|^( *)```(\\w*)\n(.*?)^ *```")

// fenced are the blocks of a page in their order.
func fenced(t *testing.T, page string) (list []fence) {
	t.Helper()
	text := read(t, filepath.Join(root, "docs", page))
	section, end := "", 0
	for _, at := range fenceOrHeading.FindAllStringSubmatchIndex(text, -1) {
		if at[2] >= 0 {
			section = text[at[2]:at[3]]
			continue
		}
		indent, language, body := text[at[4]:at[5]], text[at[6]:at[7]], text[at[8]:at[9]]
		body = strings.ReplaceAll("\n"+body, "\n"+indent, "\n")[1:]
		last := len(list) - 1
		if language == "" && last >= 0 && list[last].language == "sh" && strings.TrimSpace(text[end:at[0]]) == "" {
			list[last].output = body
		} else {
			list = append(list, fence{section: section, language: language, text: body})
		}
		end = at[1]
	}
	return list
}

// keeps are lines that are for the commands after them too.
var keeps = regexp.MustCompile(`(?m)^(?:\w+\(\) \{.*\}|export .*)\n`)

// follow runs the commands of a block and compares what they print with what the page shows. It
// returns how many it compared.
func (o *operator) follow(t *testing.T, b fence) (compared int) {
	t.Helper()
	switch b.language {
	case "sh":
		text := b.text
		for name, id := range o.real {
			text = strings.ReplaceAll(text, name, id)
		}
		out := o.must(t, o.mapped(o.kept+text))
		o.kept += strings.Join(keeps.FindAllString(text, -1), "")
		if strings.Contains(out, `"code":`) {
			t.Errorf("%s\n%s", text, out)
		}
		if b.output == "" {
			return 0
		}
		if masked(out) != masked(b.output) {
			t.Errorf("%s\n%s\nthe page shows\n%s", text, out, b.output)
		}
		return 1
	case "console":
		for exchange := range strings.SplitSeq("\n"+b.text, "\n$ ") {
			command, want, _ := strings.Cut(exchange, "\n")
			if command != "" {
				o.answers(t, command, o.mapped(want))
				compared++
			}
		}
	}
	return compared
}

// answers types a command with alice's ids in place of the page's, and learns those that are new.
func (o *operator) answers(t *testing.T, command, want string) {
	t.Helper()
	typed := ids.ReplaceAllStringFunc(command, func(id string) string {
		if known, ok := o.real[id]; ok {
			return known
		}
		return id
	})
	out, err := o.bash(t.Context(), o.mapped(o.kept+typed+" 2>&1"))
	// Health may be asked again, and what gRPC clients see follows /readyz within seconds.
	for until := time.Now().Add(20 * time.Second); strings.Contains(typed, "grpc.health") && masked(out) != masked(want) && time.Now().Before(until); {
		out, err = o.bash(t.Context(), o.mapped(o.kept+typed+" 2>&1"))
	}
	if masked(out) != masked(want) {
		t.Fatalf("$ %s\n%s%v; the page shows\n%s", typed, out, err, want)
	}
	shown, got := ids.FindAllString(want, -1), ids.FindAllString(out, -1)
	for i, id := range shown {
		if known, ok := o.real[id]; ok && known != got[i] {
			t.Errorf("$ %s\nanswers %s where the page has %s, which was %s before", typed, got[i], id, known)
		}
		o.real[id] = got[i]
	}
}

var (
	ids   = regexp.MustCompile(`\b(?:usr|con|ses)_[a-z2-7]{26}\b`)
	masks = []struct {
		what *regexp.Regexp
		with string
	}{
		{regexp.MustCompile(`\b(usr|con|ses)_[a-z2-7]{26}\b`), "$1"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "time"},
		{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "trace"},
		{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "key"},
		{regexp.MustCompile(`\b\d+ (of|values|stored|sessions|logins)\b`), "n $1"},
		{regexp.MustCompile(`\b(of) \d+\b`), "$1 n"},
		{regexp.MustCompile(`("recordId":\s*)"\d+"`), `$1"n"`},
		{regexp.MustCompile(`(/key )\d+ `), "${1}n "}, // a column of a table
		{regexp.MustCompile(`\s+`), " "},
	}
)

// masked is what a command says but for ids, times, numbers that depend on what happened before, and
// spaces, which protojson makes differ from build to build.
func masked(out string) string {
	out = said(out)
	out = regexp.MustCompile(`\s+`).ReplaceAllString(out, " ")
	for _, m := range masks {
		out = m.what.ReplaceAllString(out, m.with)
	}
	return out
}
