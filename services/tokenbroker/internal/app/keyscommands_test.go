package app_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"chatelaine.dev/internal/pgtest"
)

// keyFiles puts key-encryption keys where the commands find them, as broker/NAME.
func keyFiles(t *testing.T, keys map[string]string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "broker"), 0o700))
	for name, key := range keys {
		must(t, os.WriteFile(filepath.Join(dir, "broker", name), []byte(key), 0o600))
	}
	t.Setenv("CHATELAINE_SECRETS_DIR", dir)
}

// The whole change of a key, as docs/operations.md has it: nobody who logs in or
// calls meanwhile may notice, and the old key may be thrown away in the end.
func TestTheKeyEncryptionKeyIsChangedWhilePeopleLogInAndCall(t *testing.T) { //nolint:paralleltest // the environment
	b := newBroker(t)
	younger := randomKey()
	keyFiles(t, map[string]string{"2025": b.key, "2026": younger})
	var used [][2]string
	login := func(account string) {
		session, active := b.complete(account)
		used = append(used, [2]string{session, active.GetUserId()})
	}
	login("octocat")
	must(t, b.stop())
	b.start(b.key, younger)
	login("hubot")
	must(t, b.stop())
	b.start(younger, b.key)
	status, stdout, stderr := program(t, b.url, "keys", "status", "--key-encryption-key=broker/2026", "--key-encryption-key=broker/2025")
	if status != 0 || !regexp.MustCompile(`(?m)^\w{16}  broker/2026  0 .*newest.*\n\w{16}  broker/2025  [1-9]\d* .*needed$`).MatchString(stdout) {
		t.Fatalf("status %d, %s%s", status, stdout, stderr)
	}

	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			login("monalisa")
			last := used[len(used)-1]
			b.gateway(last[0], last[1]).header()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	pending := b.begin() // a leg that waits for its session is stored, too
	b.redeemCorp(pending)
	status, stdout, stderr = program(t, b.url, "keys", "rotate", "--key-encryption-key=broker/2026", "--key-encryption-key=broker/2025")
	close(done)
	wg.Wait()
	if status != 0 || !regexp.MustCompile(`values wrapped anew so far\ndone: \d+ values wrapped anew; key \w{16} \(broker/2026\) wraps everything\n$`).MatchString(stdout) || stderr != "" {
		t.Fatalf("status %d, %s%s", status, stdout, stderr)
	}
	status, stdout, _ = program(t, b.url, "keys", "status", "--key-encryption-key=broker/2026", "--key-encryption-key=broker/2025")
	if status != 0 || !regexp.MustCompile(`(?m)^\w{16}  broker/2025  0 .*not needed, once every broker has the newest first$`).MatchString(stdout) {
		t.Fatalf("status %d, %s", status, stdout)
	}

	must(t, b.stop())
	b.start(younger) // the old one is gone
	if _, err := b.activate(pending); err != nil {
		t.Errorf("the login that was under way: %v", err)
	}
	for _, u := range used {
		b.gateway(u[0], u[1]).header()
	}
}

func TestAKeyThatIsMissingIsNamedByTheCommandsToo(t *testing.T) { //nolint:paralleltest // the environment
	b := newBroker(t)
	b.complete("octocat")
	keyFiles(t, map[string]string{"2026": randomKey()})
	for _, command := range []string{"status", "rotate"} {
		status, stdout, stderr := program(t, b.url, "keys", command, "--key-encryption-key=broker/2026")
		if status != 1 || !strings.Contains(stderr, "protects 2 stored values and is not among those given") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: status %d, %s%s", command, status, stdout, stderr)
		}
		if command == "status" && !regexp.MustCompile(`(?m)^\w{16}  -  +2 +not given$`).MatchString(stdout) {
			t.Errorf("%s", stdout)
		}
	}
	if status, _, stderr := program(t, b.url, "keys", "rotate"); status != 2 || !strings.Contains(stderr, "--key-encryption-key") {
		t.Errorf("without a key: status %d, %s", status, stderr)
	}
	if status, _, stderr := program(t, pgtest.URL(t), "keys", "status", "--key-encryption-key=broker/2026"); status != 1 || !strings.Contains(stderr, "tokenbroker migrate") {
		t.Errorf("of an old schema: status %d, %s", status, stderr)
	}
}
