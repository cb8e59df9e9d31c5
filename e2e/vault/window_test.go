package vault

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
)

// The worst moment to die: the upstream has spent the refresh token and said what
// takes its place, and nobody else knows. The person must lose no more than the one
// connection, and only where the upstream tolerates no second use.
func TestAReplicaThatDiesBetweenAnswerAndCommitCostsAtMostOneConnection(t *testing.T) {
	h := newHouse(t, houseConfig{args: leaseArgs})
	for _, kind := range []struct {
		backend   string
		at        *provider
		tolerates bool
	}{{graceAPI, h.grace, true}, {strictAPI, h.strict, false}} {
		t.Run(kind.backend, func(t *testing.T) {
			w := window{house: h, t: t, person: h.expired(), at: kind.at, backend: kind.backend, victim: h.brokers[0]}
			w.killBeforeCommit()
			if kind.tolerates {
				w.checkTolerated()
			} else {
				w.checkRevoked()
			}
			w.checkOthers()
			w.victim.start()
		})
	}
}

// expired logs somebody new in and waits until both tokens have expired.
func (h *house) expired() *person {
	h.t.Helper()
	p := h.mustLogIn(time.Second)
	eventually(h.t, 10*time.Second, func() string {
		var living int
		h.scan(`SELECT count(*) FROM tokenbroker.connections WHERE user_id = $1 AND expires_at > clock_timestamp()`, []any{p.user}, &living)
		if living > 0 {
			return "a token lives"
		}
		return ""
	})
	return p
}

// window is one run of the test.
type window struct {
	*house
	t       *testing.T
	person  *person
	at      *provider
	backend string
	victim  *broker
	lost    entry // whose answer nobody committed
	killed  time.Time
}

// killBeforeCommit kills the victim when it has its answer, and its commit waits for
// a lock that the test holds.
func (w *window) killBeforeCommit() {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	held := w.at.holdAnswers()
	defer func() {
		if held != nil {
			w.at.letGo(held)
		}
	}()
	answered := make(chan handedOut, 1)
	go func() { answered <- w.get(ctx, w.victim, w.person, w.backend, 0) }()
	select {
	case <-held.decided:
	case out := <-answered:
		t.Fatalf("the call ended before the provider was asked: %v", out.err)
	}
	lock, err := pgx.Connect(ctx, w.url.Reveal())
	must(t, err)
	defer lock.Close(context.WithoutCancel(ctx)) // it may be broken already
	tx, err := lock.Begin(ctx)
	must(t, err)
	_, err = tx.Exec(ctx, `SELECT 1 FROM tokenbroker.connections WHERE id = $1 FOR UPDATE`, w.person.connection[w.at])
	must(t, err)
	w.at.letGo(held)
	held = nil
	var pid int
	eventually(t, 4*time.Second, func() string {
		err := w.pool.QueryRow(ctx, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
			AND query ~ 'UPDATE tokenbroker.connections SET status = ''active'', version = version \+ 1'`).Scan(&pid)
		if err != nil {
			return "no commit waits for the lock: " + err.Error()
		}
		return ""
	})
	w.victim.kill()
	w.killed = time.Now()
	must(t, tx.Rollback(ctx))
	if out := <-answered; out.err == nil {
		t.Fatal("a token was handed out that was never committed")
	}
	eventually(t, 20*time.Second, func() string {
		var there bool
		w.scan(`SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1)`, []any{pid}, &there)
		if there {
			return "the dead replica's transaction goes on"
		}
		return ""
	})
	var version int64
	var marked bool
	w.scan(`SELECT version, attempt_at IS NOT NULL FROM tokenbroker.connections WHERE id = $1`, []any{w.person.connection[w.at]}, &version, &marked)
	requests := w.at.requests("refresh_token", w.person.family[w.at])
	if version != 1 || !marked || len(requests) != 1 || requests[0].Verdict != granted {
		t.Fatalf("the window was missed: version %d, mark %t, %+v", version, marked, requests)
	}
	w.lost = requests[0]
}

// again asks the other replicas until they have an answer.
func (w *window) again(backend string) handedOut {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return w.insist(ctx, 1, w.person, backend)
}

// furtherAttempt checks that one request followed, with the old token, after the
// dead replica's lease.
func (w *window) furtherAttempt(want verdict) {
	w.t.Helper()
	requests := w.at.requests("refresh_token", w.person.family[w.at])
	if len(requests) != 2 || requests[1].Verdict != want || requests[1].Presented != w.lost.Presented || requests[1].Replica == 0 {
		w.t.Fatalf("want one further request with the old token, %s: %+v", want, requests)
	}
	w.t.Logf("the further attempt came %s after the kill: %s", requests[1].Received.Sub(w.killed).Round(10*time.Millisecond), want)
}

func (w *window) checkTolerated() {
	out := w.again(w.backend)
	must(w.t, out.err)
	w.furtherAttempt(replayed)
	if second := w.at.requests("refresh_token", w.person.family[w.at])[1]; out.token != second.Access {
		w.t.Error("what was handed out is not what the further attempt brought")
	}
	if w.at.revoked(w.person.family[w.at]) {
		w.t.Error("the family was revoked")
	}
}

func (w *window) checkRevoked() {
	for range 2 { // it is remembered
		out := w.again(w.backend)
		f, ok := fault.As(out.err)
		if !ok || f.Reason != reauthenticationRequired || f.Metadata["provider"] != "strict" {
			w.t.Fatalf("the call ended in %v, want %s for strict", out.err, reauthenticationRequired)
		}
	}
	w.furtherAttempt(reused)
	before := w.person
	again, err := w.logIn(w.t.Context(), w.brokers[1], before.subject, time.Hour)
	must(w.t, err)
	if again.user != before.user || again.connection[w.at] != before.connection[w.at] {
		w.t.Errorf("a new login made another connection: %+v", again)
	}
	w.person = again
	out := w.again(w.backend)
	must(w.t, out.err)
	if w.at.ownerOf(out.token) != again.family[w.at] {
		w.t.Error("after a new login the old family's token was handed out")
	}
	w.person = before // whose session has that connection too
	must(w.t, w.again(w.backend).err)
}

// checkOthers: nothing else of the session was touched.
func (w *window) checkOthers() {
	var locked bool
	w.scan(`SELECT locked_at IS NOT NULL FROM tokenbroker.users WHERE id = $1`, []any{w.person.user}, &locked)
	if locked {
		w.t.Error("what nobody knows locked the person's sessions")
	}
	for _, backend := range backends {
		if out := w.again(backend); out.err != nil {
			w.t.Error(fmt.Errorf("%s: %w", backend, out.err))
		}
	}
}
