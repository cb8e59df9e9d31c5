package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"chatelaine.dev/e2e/smalldisk"
	"chatelaine.dev/examples/journey"
)

// TestAFullDiskIsSaidAndLosesNothing fills the disk that Postgres' data is on, while
// a client renews its tokens, and then makes room again.
func TestAFullDiskIsSaidAndLosesNothing(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	h.works(t, login, p)
	disk := h.moveToSmallDisk(t)
	h.expectReady(t, nil)
	h.works(t, login, p)
	h.renew(t, login)
	// The journal has its next files, so that what runs out is room for rows: without
	// a journal Postgres ends itself, and that is an outage like any other.
	h.sql(t, `SELECT pg_switch_wal()`, `CHECKPOINT`)

	log := h.notebook(t)
	moved := []func(){
		h.counter(t, "authserver", "http_server_request_duration_seconds_count", `http_route="/oauth/token"`, `"503"`),
		h.counter(t, "authserver", "chatelaine_authserver_tokens_total", `grant_type="refresh_token"`, `outcome="temporarily_unavailable"`),
	}
	room := smalldisk.Fill(t, disk)
	a := h.renewUntilFull(t, login)
	if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Body, `"temporarily_unavailable"`) || a.Header.Get("Retry-After") == "" {
		t.Errorf("a refresh answers %s, Retry-After %q", a, a.Header.Get("Retry-After"))
	}
	log.any(t, "authserver", `"msg":"request refused"`, `"reason":"database_unavailable"`, "No space left on device")
	before := h.refreshTokens(t)
	if a := h.refresh(t, login); a.Status != http.StatusServiceUnavailable {
		t.Errorf("another refresh answers %s", a)
	}
	if after := h.refreshTokens(t); after != before {
		t.Errorf("%d refresh tokens after one that failed, and %d before: something of it was written", after, before)
	}
	for _, m := range moved {
		m()
	}
	h.works(t, login, p) // with what was given out before

	room()
	h.renew(t, login) // at once, and with the same token: it was not used up
	if after := h.refreshTokens(t); after != before+1 {
		t.Errorf("%d refresh tokens after one that worked, want one more than %d", after, before)
	}
	h.expectReady(t, nil)
	h.works(t, login, p)
	if err := walk(t, h.person(), newClientAt(t, h.stack.MCPURL())); err != nil {
		t.Errorf("a login afterwards: %v", err)
	}
}

// renewUntilFull renews until that is refused, and returns the refusal: pages with
// room left in them take some rows yet.
func (h *house) renewUntilFull(t *testing.T, login *journey.Login) answer {
	t.Helper()
	for range 500 {
		a := h.refresh(t, login)
		if a.Status != http.StatusOK {
			return a
		}
		login.Token.AccessToken, login.Token.RefreshToken = h.tokens(t, a)
	}
	t.Fatal("500 renewals, and the disk is not full")
	return answer{}
}

func (h *house) refreshTokens(t *testing.T) (n int) {
	t.Helper()
	h.query(t, `SELECT count(*) FROM authserver.refresh_tokens`, &n)
	return n
}

// moveToSmallDisk moves Postgres' data to a disk of 160 MB and starts it there. The
// disk is a tmpfs, which says what a disk says when it is full.
func (h *house) moveToSmallDisk(t *testing.T) (disk string) {
	t.Helper()
	disk = filepath.Join(h.data, "disk")
	smalldisk.Mount(t, disk, 160<<20)
	t.Cleanup(func() { // before the disk goes, and before the house's own
		if err := h.stopPostgres(); err != nil {
			t.Error(err)
		}
	})
	h.endPostgres(t, syscall.SIGINT)
	data := filepath.Join(h.data, "data")
	if out, err := exec.CommandContext(t.Context(), "mv", data, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Symlink(filepath.Join(disk, "data"), data); err != nil {
		t.Fatal(err)
	}
	h.startPostgres(t)
	return disk
}
