package vault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	roundsEnv = "CHATELAINE_VAULT_ROUNDS"
	callsEnv  = "CHATELAINE_VAULT_CALLS"
	seedEnv   = "CHATELAINE_VAULT_SEED"

	// peopleOfRound have two connections each, which all expire before it.
	peopleOfRound = 5
	// patience of a caller: longer than a lease, and what follows it.
	patience = 2 * time.Minute
	// slowest is what half of a provider's answer takes at most.
	slowest = 400 * time.Millisecond
)

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		t.Fatalf("%s=%s is not a number", name, text)
	}
	return n
}

// disturbance is what happens to one replica in a round.
type disturbance struct {
	name   string
	victim int
	after  time.Duration // since the calls began, or since the first provider was asked
	// underWay says the latter.
	underWay bool
	at       time.Time // when it happened
}

// round is many calls at once that all meet expired tokens.
type round struct {
	*house
	number      int
	disturbance *disturbance // nil: none
	people      []*person
	began       time.Time
	took        time.Duration
	results     []handedOut

	hits, asked, again, reauthenticate int
}

// Twice as many refresh requests as expiries cost a person their connection where
// reuse revokes; so must one that a dying replica left in doubt never cost more than
// the one connection, and never another one's.
func TestOneRefreshForAllCallersAndReplicasWhateverHappensToOne(t *testing.T) {
	rounds, calls := setting(t, roundsEnv, 10), setting(t, callsEnv, 1000)
	seed := uint64(setting(t, seedEnv, int(time.Now().UnixNano()&0xffffff)+1))
	t.Logf("%d rounds of %d calls, %s=%d", rounds, calls, seedEnv, seed)
	random := rand.New(rand.NewPCG(seed, seed))

	h := newHouse(t, houseConfig{args: leaseArgs})
	h.recordCommits()
	for _, p := range []*provider{h.strict, h.grace} {
		p.mu.Lock()
		p.random, p.slowest = rand.New(rand.NewPCG(seed, 7)), slowest
		p.mu.Unlock()
	}
	var total round
	disturbed, hitRounds := 0, 0
	for i := range rounds {
		r := &round{house: h, number: i}
		if i%2 == 1 {
			disturbed++
			r.disturbance = &disturbance{
				name: []string{"killed", "suspended"}[(i/2)%2], victim: random.IntN(replicas),
				after: time.Duration(random.Int64N(int64(4 * slowest))), underWay: random.IntN(4) > 0,
			}
		}
		r.prepare(random)
		r.run(calls)
		r.check()
		t.Log(r)
		total.hits, total.asked, total.again, total.reauthenticate = total.hits+r.hits, total.asked+r.asked, total.again+r.again, total.reauthenticate+r.reauthenticate
		if r.hits > 0 {
			hitRounds++
		}
		if t.Failed() {
			t.Fatalf("stopped after round %d; repeat it with %s=%d", i, seedEnv, seed)
		}
	}
	t.Logf("%d rounds, %d disturbed, %d of these hit between sending and commit (%d connections): %d refresh requests for %d expiries, %d further attempts, %d connections ask for a new login",
		rounds, disturbed, hitRounds, total.hits, total.asked, rounds*peopleOfRound*2, total.again, total.reauthenticate)
	if disturbed >= 5 && hitRounds == 0 {
		t.Error("no round was hit between sending and commit: the test proved nothing about that")
	}
}

// recordCommits keeps what was committed of each connection, beside the broker's own
// tables.
func (h *house) recordCommits() {
	h.exec(`CREATE TABLE public.committed (connection_id text, version bigint, status text, at timestamptz DEFAULT clock_timestamp())`)
	h.exec(`CREATE FUNCTION public.note_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP = 'INSERT' OR (NEW.version, NEW.status) IS DISTINCT FROM (OLD.version, OLD.status) THEN
			INSERT INTO public.committed (connection_id, version, status) VALUES (NEW.id, NEW.version, NEW.status);
		END IF;
		RETURN NULL;
	END $$`)
	h.exec(`CREATE TRIGGER note_commit AFTER INSERT OR UPDATE ON tokenbroker.connections FOR EACH ROW EXECUTE FUNCTION public.note_commit()`)
}

// prepare logs people in, and waits until their tokens have expired.
func (r *round) prepare(random *rand.Rand) {
	r.t.Helper()
	for i := range peopleOfRound {
		p, err := r.logIn(r.t.Context(), r.brokers[random.IntN(replicas)], fmt.Sprintf("round-%d-person-%d", r.number, i), time.Second)
		must(r.t, err)
		r.people = append(r.people, p)
	}
	eventually(r.t, 30*time.Second, func() string {
		var living int
		r.scan(`SELECT count(*) FROM tokenbroker.connections WHERE version = 1 AND status = 'active' AND expires_at > clock_timestamp()`, nil, &living)
		if living > 0 {
			return fmt.Sprintf("%d tokens have not expired", living)
		}
		return ""
	})
}

// run makes all calls at once, with the disturbance in their midst.
func (r *round) run(calls int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	r.results = make([]handedOut, calls)
	start := make(chan struct{})
	var callers sync.WaitGroup
	for i := range calls {
		callers.Go(func() {
			<-start
			// Each person's backends are asked for at each replica.
			person, backend := r.people[i/replicas%len(r.people)], backends[i/(replicas*len(r.people))%len(backends)]
			r.results[i] = r.insist(ctx, i, person, backend)
		})
	}
	r.began = time.Now()
	close(start)
	r.disturb()
	callers.Wait()
	r.took = time.Since(r.began)
	r.recover()
}

// disturb does what is to be done to a replica; one that was suspended goes on when
// every lease that it may have had is over.
func (r *round) disturb() {
	d := r.disturbance
	if d == nil {
		return
	}
	from := r.began
	if d.underWay {
		eventually(r.t, time.Minute, func() string {
			from = r.firstAsked()
			if from.IsZero() {
				return "no provider was asked"
			}
			return ""
		})
	}
	time.Sleep(time.Until(from.Add(d.after))) // a moment in the midst of it all
	victim := r.brokers[d.victim]
	d.at = time.Now()
	if d.name == "killed" {
		victim.kill()
		return
	}
	victim.signal(syscall.SIGSTOP)
	time.Sleep(lease + time.Second) // no condition to wait for: nothing of the process moves
	victim.signal(syscall.SIGCONT)
}

// recover starts a killed replica again, and waits until nothing is under way.
func (r *round) recover() {
	r.t.Helper()
	if d := r.disturbance; d != nil && d.name == "killed" {
		r.brokers[d.victim].start()
	}
	eventually(r.t, time.Minute, func() string {
		var held int
		r.scan(`SELECT count(*) FROM tokenbroker.connections WHERE lease_until > clock_timestamp()`, nil, &held)
		if held > 0 {
			return fmt.Sprintf("%d leases are held", held)
		}
		if n := r.strict.undecided("refresh_token") + r.grace.undecided("refresh_token"); n > 0 {
			return fmt.Sprintf("%d refresh requests are not decided", n)
		}
		return ""
	})
}

// firstAsked is when the round's first refresh request arrived.
func (r *round) firstAsked() time.Time {
	var first time.Time
	for _, p := range r.people {
		for _, at := range []*provider{r.strict, r.grace} {
			for _, e := range at.requests("refresh_token", p.family[at]) {
				if first.IsZero() || e.Received.Before(first) {
					first = e.Received
				}
			}
		}
	}
	return first
}

func (r *round) String() string {
	what := "undisturbed"
	if d := r.disturbance; d != nil {
		what = fmt.Sprintf("replica %d %s after %s", d.victim, d.name, d.at.Sub(r.began).Round(time.Millisecond))
	}
	repeated := 0
	for i := range r.results {
		if r.results[i].asked > 1 {
			repeated++
		}
	}
	return fmt.Sprintf("round %2d: %s: %d calls in %s (%d of them asked more than once), %d refresh requests, %d connections hit, %d asked for again, %d need a new login",
		r.number, what, len(r.results), r.took.Round(time.Millisecond), repeated, r.asked, r.hits, r.again, r.reauthenticate)
}
