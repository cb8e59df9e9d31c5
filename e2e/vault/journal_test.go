package vault

import (
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/internal/fault"
)

const reauthenticationRequired = "REAUTHENTICATION_REQUIRED"

// outcome is what a round did to one connection, by the journal and the rows.
type outcome struct {
	name, connection, family string
	at                       *provider
	requests                 []entry
	hit                      bool
	status                   string
	version                  int64
}

// check holds a round's outcome to what was promised. It reads the journals of the
// providers, the rows, and what callers were told.
func (r *round) check() {
	r.t.Helper()
	byConnection := map[string]*outcome{}
	for _, p := range r.people {
		for _, at := range []*provider{r.strict, r.grace} {
			o := r.outcome(p, at)
			byConnection[o.connection] = o
			r.checkConnection(o)
		}
		r.checkExchanges(p)
	}
	r.checkAnswers(byConnection)
}

func (r *round) outcome(p *person, at *provider) *outcome {
	r.t.Helper()
	o := &outcome{name: "grace", connection: p.connection[at], family: p.family[at], at: at, requests: at.requests("refresh_token", p.family[at])}
	if at == r.strict {
		o.name = "strict"
	}
	r.scan(`SELECT status, version FROM tokenbroker.connections WHERE id = $1`, []any{o.connection}, &o.status, &o.version)
	if r.disturbance != nil {
		o.hit = r.wasHit(o)
	}
	return o
}

// wasHit reports whether the victim had sent a request, and not committed what came
// of it, when it was killed or suspended.
func (r *round) wasHit(o *outcome) bool {
	r.t.Helper()
	var committed bool
	r.scan(`SELECT EXISTS (SELECT 1 FROM public.committed WHERE connection_id = $1 AND version = 2 AND at < $2)`,
		[]any{o.connection, r.disturbance.at}, &committed)
	for i := range o.requests {
		// What the kernel had taken from it still arrives.
		if q := &o.requests[i]; q.Replica == r.disturbance.victim && q.Received.Before(r.disturbance.at.Add(time.Second)) && !committed {
			return true
		}
	}
	return false
}

// checkConnection looks at one connection.
func (r *round) checkConnection(o *outcome) {
	r.t.Helper()
	r.asked += len(o.requests)
	if o.hit {
		r.hits++
	}
	needsLogin := o.status == "reauthentication_required"
	if needsLogin {
		r.reauthenticate++
	}
	if len(o.requests) > 1 {
		r.again++
	}
	most := 1
	if o.hit {
		most = 2 // one further attempt
	}
	if n := len(o.requests); n < 1 || n > most {
		r.t.Errorf("round %d: %s got %d refresh requests for one expiry, want 1 to %d (hit: %t): %+v", r.number, o.name, n, most, o.hit, o.requests)
	}
	switch {
	case o.at.grace > 0 && (needsLogin || o.at.revoked(o.family)):
		r.t.Errorf("round %d: a connection to %s was lost (status %s, family revoked: %t): %+v", r.number, o.name, o.status, o.at.revoked(o.family), o.requests)
	case !o.hit && (needsLogin || o.at.revoked(o.family)):
		r.t.Errorf("round %d: a connection to %s was lost, and nothing hit it (status %s): %+v", r.number, o.name, o.status, o.requests)
	case !needsLogin && (o.status != "active" || o.version < 2):
		r.t.Errorf("round %d: a connection to %s is %s at version %d", r.number, o.name, o.status, o.version)
	}
}

// checkExchanges: one at each replica, since each of them has its own cache.
func (r *round) checkExchanges(p *person) {
	r.t.Helper()
	type where struct {
		replica int
		subject string
	}
	seen := map[where]int{}
	for _, e := range r.grace.requests(grantExchange, p.family[r.grace]) {
		seen[where{e.Replica, e.Presented}]++
	}
	if len(seen) == 0 {
		r.t.Errorf("round %d: nobody exchanged a token", r.number)
	}
	for at, n := range seen {
		if n > 1 {
			r.t.Errorf("round %d: replica %d exchanged one token %d times", r.number, at.replica, n)
		}
	}
}

// checkAnswers looks at what callers got.
func (r *round) checkAnswers(byConnection map[string]*outcome) {
	r.t.Helper()
	tokens := map[string]string{} // by connection and version
	for i := range r.results {
		out := &r.results[i]
		if out.err == nil {
			r.checkToken(out, tokens)
			continue
		}
		f, _ := fault.As(out.err)
		o := byConnection[out.person.connection[r.strict]]
		if f == nil || f.Reason != reauthenticationRequired || f.Metadata["provider"] != "strict" || out.backend != strictAPI || !o.hit {
			r.t.Errorf("round %d: a call for %s ended in %v", r.number, out.backend, out.err)
		}
	}
	if r.disturbance != nil {
		return
	}
	for i := range r.results {
		if err := r.results[i].refused; err != nil {
			r.t.Errorf("round %d: nothing was disturbed, and a call was first refused: %v", r.number, err)
		}
	}
}

// checkToken: what is handed out is of the person, and in a committed row.
func (r *round) checkToken(out *handedOut, tokens map[string]string) {
	r.t.Helper()
	at := r.grace
	if out.backend == strictAPI {
		at = r.strict
	}
	fields := strings.Split(out.version, ".")
	if len(fields) < 3 || fields[1] != out.person.connection[at] {
		r.t.Errorf("round %d: a credential of version %q", r.number, out.version)
		return
	}
	if out.backend == exchanged {
		if !exchangedFor(at, out) {
			r.t.Errorf("round %d: a credential that the token service has not made for its person", r.number)
		}
	} else {
		if at.ownerOf(out.token) != out.person.family[at] {
			r.t.Errorf("round %d: a token that %s has not made for its person", r.number, out.backend)
		}
		key := fields[1] + "." + fields[2]
		if before, ok := tokens[key]; ok && before != out.token {
			r.t.Errorf("round %d: two tokens were handed out as version %s of one connection", r.number, fields[2])
		} else if !ok {
			tokens[key] = out.token
			r.checkCommitted(fields[1], fields[2])
		}
	}
	if fields[2] == "1" {
		r.t.Errorf("round %d: an expired token was handed out for %s", r.number, out.backend)
	}
}

func (r *round) checkCommitted(connection, version string) {
	r.t.Helper()
	n, err := strconv.ParseInt(version, 10, 64)
	must(r.t, err)
	var times int
	r.scan(`SELECT count(*) FROM public.committed WHERE connection_id = $1 AND version = $2 AND status = 'active'`, []any{connection, n}, &times)
	if times != 1 {
		r.t.Errorf("round %d: version %s of a connection was handed out, and committed %d times", r.number, version, times)
	}
}

func exchangedFor(at *provider, out *handedOut) bool {
	for _, e := range at.requests(grantExchange, out.person.family[at]) {
		if e.Access == out.token {
			return true
		}
	}
	return false
}
