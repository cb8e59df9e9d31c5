package vault

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// ledger is what callers were told is done, while something happens to the database.
type ledger struct {
	*house
	t *testing.T

	mu       sync.Mutex
	people   []*account
	failures map[string]int // of calls, by what they were told
	done     map[string]time.Time
}

// account is a person whose login was acknowledged.
type account struct {
	*person
	versions map[*provider]int64 // the newest that was handed out
	ended    bool                // the end was acknowledged
	leaving  bool                // it was asked for
}

const writers = 6

// load logs people in, renews their tokens and ends some of their sessions, through
// all brokers at once, until the function that it returns is called.
func (l *ledger) load() (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				l.journey(ctx, n%replicas, n%4 == 3)
			}
		})
	}
	return func() { cancel(); group.Wait() }
}

// journey is one person's login, renewals and, sometimes, end.
func (l *ledger) journey(ctx context.Context, replica int, leaves bool) {
	call, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	b := l.brokers[replica]
	p, err := l.logIn(call, b, strings.ToLower(rand.Text()), time.Hour)
	if l.failed(ctx, "login", err) {
		return
	}
	a := &account{person: p, versions: map[*provider]int64{}}
	l.note("login", replica, func() { l.people = append(l.people, a) })
	for _, backend := range []string{strictAPI, graceAPI} {
		if l.renewed(ctx, call, b, a, backend) {
			l.note("renewal", replica, func() {})
		}
	}
	if !leaves {
		return
	}
	l.mu.Lock()
	a.leaving = true
	l.mu.Unlock()
	_, err = b.login.EndSession(call, &brokerv1.EndSessionRequest{SessionId: p.session, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_SIGNED_OUT})
	if !l.failed(ctx, "end", err) {
		l.note("end", replica, func() { a.ended = true })
	}
}

// renewed gets a credential, says that the backend refused it, and gets its successor.
func (l *ledger) renewed(ctx, call context.Context, b *broker, a *account, backend string) bool {
	first := l.get(call, b, a.person, backend, 0)
	if l.failed(ctx, "credential", first.err) {
		return false
	}
	l.handed(a, first)
	_, err := b.credentials[0].ReportRejected(call, &brokerv1.ReportRejectedRequest{
		AccessToken: a.token, Backend: backend, ConfigDigest: l.digest, CredentialVersion: first.version,
	})
	if l.failed(ctx, "renewal", err) {
		return false
	}
	second := l.get(call, b, a.person, backend, 0)
	if l.failed(ctx, "credential", second.err) {
		return false
	}
	l.handed(a, second)
	return second.version != first.version
}

func (l *ledger) handed(a *account, out handedOut) {
	at := l.providerNamed(strings.TrimSuffix(out.backend, "-api"))
	l.mu.Lock()
	defer l.mu.Unlock()
	a.versions[at] = max(a.versions[at], l.number(out.version))
}

func (l *ledger) number(version string) int64 {
	fields := strings.Split(version, ".")
	n, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
	if err != nil {
		l.t.Errorf("a credential of version %q", version)
	}
	return n
}

// note keeps that something was acknowledged by a replica.
func (l *ledger) note(what string, replica int, change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.done[what+" at replica "+strconv.Itoa(replica)] = time.Now()
}

// failed counts a failure, which must be one that callers may try again.
func (l *ledger) failed(ctx context.Context, what string, err error) bool {
	if err == nil {
		return false
	}
	if ctx.Err() != nil {
		return true // the load was stopped
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := fault.From(err)
	l.failures[fmt.Sprintf("%s: %s", what, f)]++
	if !transient(err) {
		l.t.Errorf("%s: told %s, which nobody would try again", what, fault.Detail(err))
	}
	return true
}

// resumed waits until every replica has acknowledged each kind of write since then.
func (l *ledger) resumed(since time.Time) {
	l.t.Helper()
	eventually(l.t, time.Minute, func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, what := range []string{"login", "renewal"} {
			for i := range replicas {
				if key := what + " at replica " + strconv.Itoa(i); !l.done[key].After(since) {
					return "no " + key + " since the database is back"
				}
			}
		}
		return ""
	})
	l.t.Logf("every replica has acknowledged writes again, after %s", time.Since(since).Round(10*time.Millisecond))
}

// failedSome waits until callers have noticed.
func (l *ledger) failedSome(since int) {
	l.t.Helper()
	eventually(l.t, 30*time.Second, func() string {
		if l.failureCount() <= since {
			return "nobody noticed that the database fails"
		}
		return ""
	})
}

func (l *ledger) failureCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, k := range l.failures {
		n += k
	}
	return n
}

// count is how many logins were acknowledged.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.people)
}

// check holds what is stored to what was acknowledged.
func (l *ledger) check() {
	l.t.Helper()
	l.settled()
	renewals, ended := 0, 0
	for _, a := range l.people {
		if a.ended {
			ended++
		}
		for at, version := range a.versions {
			renewals += int(version) - 1
			l.checkConnection(a, at, version)
		}
		l.checkSession(a)
	}
	l.checkWhole()
	l.t.Logf("%d logins, %d renewals and %d ends of sessions were acknowledged, none is lost; calls failed with %v", len(l.people), renewals, ended, l.failures)
}

// settled waits until no renewal is under way: one whose commit failed is tried again.
// A mark may stay, of a lease whose acknowledgement was lost with its connection:
// nobody renewed under it, and the next who asks does.
func (l *ledger) settled() {
	l.t.Helper()
	eventually(l.t, 90*time.Second, func() string {
		var open int
		l.scan(`SELECT count(*) FROM tokenbroker.connections WHERE lease_until > clock_timestamp()`, nil, &open)
		if open > 0 {
			return fmt.Sprintf("%d renewals are under way", open)
		}
		return ""
	})
}

func (l *ledger) checkConnection(a *account, at *provider, version int64) {
	l.t.Helper()
	var status string
	var stored, records int64
	l.scan(`SELECT c.status, c.version, (SELECT count(*) FROM tokenbroker.audit WHERE connection_id = c.id AND action = 'connection.refreshed' AND outcome = 'success')
		FROM tokenbroker.connections c WHERE c.id = $1`, []any{a.connection[at]}, &status, &stored, &records)
	if stored < version {
		l.t.Errorf("version %d of a connection was handed out, and %d is stored", version, stored)
	}
	if status != "active" || at.revoked(a.family[at]) {
		l.t.Errorf("a connection is %s, its family revoked: %t: %+v", status, at.revoked(a.family[at]), at.requests("refresh_token", a.family[at]))
	}
	if records != stored-1 {
		l.t.Errorf("%d records of renewals, of a connection at version %d", records, stored)
	}
}

// checkSession asks for a credential with what the person has.
func (l *ledger) checkSession(a *account) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	for _, backend := range []string{strictAPI, graceAPI} {
		out := l.insist(ctx, 0, a.person, backend)
		switch {
		case a.ended:
			if fault.ReasonOf(out.err) != "SESSION_ENDED" {
				l.t.Errorf("the end of a session was acknowledged, and it opens %s: %v", backend, out.err)
			}
		case out.err != nil && !(a.leaving && fault.ReasonOf(out.err) == "SESSION_ENDED"):
			l.t.Errorf("a person who logged in gets %v from %s", out.err, backend)
		case out.err == nil:
			at := l.providerNamed(strings.TrimSuffix(backend, "-api"))
			if newest := at.newest(a.family[at]); out.token != newest {
				l.t.Errorf("%s is sent a token that its provider has replaced since: what it granted was lost", backend)
			}
		}
	}
}

// checkWhole looks for what a transaction that was cut in half would leave.
func (l *ledger) checkWhole() {
	l.t.Helper()
	for what, sql := range map[string]string{
		"active sessions without a link for each provider": `SELECT count(*) FROM tokenbroker.sessions s WHERE state = 'active'
			AND (SELECT count(*) FROM tokenbroker.session_links WHERE session_id = s.id AND connection_id IS NOT NULL) <> 2`,
		"active sessions with staged tokens": `SELECT count(*) FROM tokenbroker.staged_legs JOIN tokenbroker.sessions s ON s.id = session_id WHERE s.state <> 'pending'`,
		"ended sessions without an event": `SELECT count(*) FROM tokenbroker.sessions s WHERE state = 'ended' AND activated_at IS NOT NULL
			AND NOT EXISTS (SELECT 1 FROM tokenbroker.events WHERE session_id = s.id)`,
		"activated sessions without a record": `SELECT count(*) FROM tokenbroker.sessions s WHERE activated_at IS NOT NULL
			AND NOT EXISTS (SELECT 1 FROM tokenbroker.audit WHERE session_id = s.id AND action = 'session.activated')`,
		"gaps in the log of events": `SELECT (SELECT position FROM tokenbroker.event_head) - count(*) FROM tokenbroker.events`,
	} {
		var n int
		l.scan(sql, nil, &n)
		if n != 0 {
			l.t.Errorf("%d %s", n, what)
		}
	}
}

// newest is the access token that was granted last to a family.
func (p *provider) newest(familyID string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.journal) - 1; i >= 0; i-- {
		if e := p.journal[i]; e.Family == familyID && e.Kind != grantExchange && e.Access != "" {
			return e.Access
		}
	}
	return ""
}
