package vault

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
)

// What is stored belongs where it is: whoever may write rows must not get another
// person's tokens handed out, nor a version's that was replaced.
func TestSealedTokensThatWereMovedAreNotHandedOut(t *testing.T) {
	h := newHouse(t, houseConfig{args: leaseArgs})
	mine, other := h.mustLogIn(time.Hour), h.mustLogIn(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, swap := range map[string]struct{ a, b string }{
		"two people's":              {mine.connection[h.grace], other.connection[h.grace]},
		"one person's, of two legs": {mine.connection[h.grace], mine.connection[h.strict]},
	} {
		h.swap(swap.a, swap.b)
		out := h.get(ctx, h.brokers[1], mine, graceAPI, 0)
		if out.err == nil || out.token != "" || fault.KindOf(out.err) != fault.Internal {
			t.Errorf("%s tokens, swapped: %v, a token: %t; want an internal error", name, out.err, out.token != "")
		}
		if strings.Contains(out.err.Error(), mine.connection[h.grace]) {
			t.Errorf("%s tokens, swapped: the caller reads the row's name: %v", name, out.err)
		}
		h.swap(swap.a, swap.b)
	}
	must(t, h.get(ctx, h.brokers[1], mine, graceAPI, 0).err) // back where they were

	// An old version, put back over its successor.
	h.exec(`CREATE TABLE public.kept AS SELECT id, key_id, wrapped_key, sealed_tokens FROM tokenbroker.connections`)
	h.exec(`UPDATE tokenbroker.connections SET expires_at = clock_timestamp(), refresh_after = NULL WHERE id = $1`, other.connection[h.grace])
	renewed := h.get(ctx, h.brokers[0], other, graceAPI, 0)
	must(t, renewed.err)
	h.exec(`UPDATE tokenbroker.connections c SET key_id = k.key_id, wrapped_key = k.wrapped_key, sealed_tokens = k.sealed_tokens
		FROM public.kept k WHERE k.id = c.id AND c.id = $1`, other.connection[h.grace])
	if out := h.get(ctx, h.brokers[2], other, graceAPI, 0); out.err == nil || fault.KindOf(out.err) != fault.Internal {
		t.Errorf("an older version's tokens, put back: %v, want an internal error", out.err)
	}
	if n := len(h.grace.requests("refresh_token", mine.family[h.grace])); n != 0 {
		t.Errorf("%d refresh requests were made with tokens that had been moved", n)
	}
	log, err := os.ReadFile(h.brokers[1].log)
	must(t, err)
	line := ""
	for l := range strings.Lines(string(log)) {
		if strings.Contains(l, "seal_invalid") {
			line = l
		}
	}
	t.Logf("the broker logs: %s", line)
	if !strings.Contains(line, "a sealed value does not open") || !strings.Contains(line, `"level":"ERROR"`) {
		t.Error("no line of the broker's log says that a sealed value does not open")
	}
}

func (h *house) swap(a, b string) {
	h.t.Helper()
	h.exec(`UPDATE tokenbroker.connections c SET key_id = o.key_id, wrapped_key = o.wrapped_key, sealed_tokens = o.sealed_tokens
		FROM tokenbroker.connections o WHERE (c.id, o.id) IN (($1, $2), ($2, $1))`, a, b)
}

// rekey restarts one broker after the other with these keys, newest first.
func (h *house) rekey(keys ...string) {
	h.t.Helper()
	h.kek = nil
	for _, key := range keys {
		h.kek = append(h.kek, "vault-kek/"+key)
	}
	for _, b := range h.brokers {
		b.stop()
		b.args = append(append([]string{}, b.base...), h.keyArgs()...)
		b.start()
	}
}

func (h *house) keys(command string) string {
	h.t.Helper()
	out, err := h.run(append([]string{"keys", command}, h.keyArgs()...)...)
	if err != nil {
		h.t.Fatalf("keys %s: %v\n%s", command, err, out)
	}
	return out
}

// The way that the page of operation describes, while people work.
func TestRotationUnderLoadLosesNothing(t *testing.T) {
	l := newLedger(t, houseConfig{args: leaseArgs})
	stop := l.load()
	defer stop()
	l.busy(30)
	first := l.keyInUse()
	h := l.house
	h.newKey("second") // only the file: who uses it is rekey's
	l.rekey("first", "second")
	l.rekey("second", "first")
	begun := time.Now()
	out := l.keys("rotate")
	l.resumed(begun)
	t.Logf("keys rotate, in %s: %s", time.Since(begun).Round(time.Millisecond), strings.TrimSpace(out))
	if status := l.keys("status"); !strings.Contains(status, "not needed") {
		t.Errorf("keys status says:\n%s", status)
	}
	var left int
	l.scan(`SELECT (SELECT count(*) FROM tokenbroker.connections WHERE key_id = $1) + (SELECT count(*) FROM tokenbroker.staged_legs WHERE key_id = $1)`, []any{first}, &left)
	if left != 0 {
		t.Errorf("%d values are under the old key", left)
	}
	l.rekey("second")
	l.resumed(time.Now())
	stop()
	l.check()
}

// keyInUse is the id of the one key that wraps everything.
func (l *ledger) keyInUse() (id string) {
	l.t.Helper()
	l.scan(`SELECT DISTINCT key_id FROM tokenbroker.connections WHERE key_id IS NOT NULL`, nil, &id)
	return id
}
