package pgtest

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"chatelaine.dev/internal/postgres"
)

// HoldMigrations fails the test when a migration of m differs from the published
// one of its name (by the SHA-256 of the file, in hexadecimal), or has a statement
// that a replica of the version before, still running, may not survive. Such a
// statement is allowed when nothing that still runs depends on what it takes away;
// a comment in front of it then says why, beginning with [Tolerated]. For files
// that were published without such a comment, excused has the reason.
func HoldMigrations(t testing.TB, m postgres.Migrations, published, excused map[string]string) {
	t.Helper()
	names, err := fs.Glob(m.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(m.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		switch sum := sha256.Sum256(data); published[name] {
		case hex.EncodeToString(sum[:]):
		case "":
			t.Errorf("%s is not among the published migrations: add its hash %x", name, sum)
		default:
			t.Errorf("%s is not what databases have: undo the edit and write another migration", name)
		}
		found := intolerable(string(data))
		_, ok := excused[name]
		switch {
		case ok && len(found) == 0:
			t.Errorf("%s needs no excuse", name)
		case !ok && len(found) > 0:
			t.Errorf("%s has statements that the version before may not survive: %q\nchange the schema in two versions, or say in front of the statement, after %q, why it is safe",
				name, found, Tolerated)
		}
	}
	if len(names) != len(published) {
		t.Errorf("%d migrations, %d were published: none may be taken away", len(names), len(published))
	}
}

// Tolerated begins the comment of a statement that the version before survives.
const Tolerated = "-- Tolerated by the version before:"

// taking are statements that take away, or ask for, what the version before does
// not know of.
var taking = []*regexp.Regexp{
	regexp.MustCompile(`\bDROP\s+(TABLE|COLUMN|SCHEMA|TYPE|VIEW|FUNCTION|TRIGGER|SEQUENCE|DEFAULT|DOMAIN)\b`),
	regexp.MustCompile(`\bRENAME\b`),
	regexp.MustCompile(`\bSET\s+(NOT\s+NULL|SCHEMA|DATA\s+TYPE)\b`),
	regexp.MustCompile(`\bALTER\s+(COLUMN\s+)?\S+\s+TYPE\b`),
	regexp.MustCompile(`\bADD\s+(CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)\b`),
	regexp.MustCompile(`\bCREATE\s+UNIQUE\s+INDEX\b`),
	regexp.MustCompile(`\b(CREATE\s+(OR\s+REPLACE\s+)?(CONSTRAINT\s+)?(TRIGGER|RULE|POLICY)|TRUNCATE|REVOKE|DELETE\s+FROM)\b`),
}

var literalsAndComments = regexp.MustCompile(`'[^']*'|--[^\n]*`)

var (
	addColumn = regexp.MustCompile(`\bADD\s+COLUMN\b`)
	needed    = regexp.MustCompile(`\bNOT\s+NULL\b`)
	filled    = regexp.MustCompile(`\b(DEFAULT|GENERATED)\b`)
	narrow    = regexp.MustCompile(`\b(CHECK|UNIQUE|REFERENCES)\b`)
)

// intolerable returns the statements of a migration that the version before may
// not survive.
func intolerable(sql string) []string {
	const mark = "\x00"
	sql = literalsAndComments.ReplaceAllStringFunc(sql, func(text string) string {
		switch {
		case strings.HasPrefix(text, Tolerated):
			return mark
		case strings.HasPrefix(text, "--"):
			return ""
		}
		return "''"
	})
	var found []string
	for statement := range strings.SplitSeq(strings.ToUpper(sql), ";") {
		if !strings.Contains(statement, mark) && takes(statement) {
			found = append(found, strings.TrimSpace(statement))
		}
	}
	return found
}

func takes(statement string) bool {
	for _, re := range taking {
		if re.MatchString(statement) {
			return true
		}
	}
	for _, action := range actions(statement) {
		if addColumn.MatchString(action) && (narrow.MatchString(action) || needed.MatchString(action) && !filled.MatchString(action)) {
			return true
		}
	}
	return false
}

// actions splits a statement at its outermost commas.
func actions(statement string) []string {
	var all []string
	depth, begin := 0, 0
	for i, c := range statement {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			all = append(all, statement[begin:i])
			begin = i + 1
		}
	}
	return append(all, statement[begin:])
}
