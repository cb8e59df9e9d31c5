package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestAFailureIsCountedAndTold: a test that looks at the counts alone would pass without it.
func TestAFailureIsCountedAndTold(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &recorder{begin: time.Now(), log: &out}
	r.note("login", logins, time.Now(), nil)
	r.note("repos_whoami", calls, time.Now().Add(-time.Second), errors.New("bad gateway"))
	if err := r.line(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"failure":"repos_whoami"`) || !strings.Contains(lines[0], "bad gateway") {
		t.Fatalf("%q", lines)
	}
	var got Stats
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil {
		t.Fatal(err)
	}
	if got.Logins != 1 || got.Calls != 0 || got.Failed != 1 || got.Last != "repos_whoami: bad gateway" || got.SlowestMS < 1000 {
		t.Errorf("%+v", got)
	}
}
