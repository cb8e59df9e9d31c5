package limits

import (
	"hash/maphash"
	"net/http"
	"strconv"
	"sync"

	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// Requests bounds how many requests one person has running at a time. Streams
// that clients open are not counted here.
type Requests struct {
	most    int
	refused func()
	seed    maphash.Seed
	shards  [shards]requestShard
}

type requestShard struct {
	mu      sync.Mutex
	running map[string]int // by person
	_       [64]byte       // keeps the locks of two shards off one cache line
}

func newRequests(most int, refused func()) *Requests {
	q := &Requests{most: most, refused: refused, seed: maphash.MakeSeed()}
	for i := range q.shards {
		q.shards[i].running = make(map[string]int)
	}
	return q
}

// Wrap lets requests through to next, which finds the caller in the request's
// context, or answers 429.
func (q *Requests) Wrap(next http.Handler) http.Handler {
	if q == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := caller.FromContext(r.Context())
		if !ok || who.Anonymous || r.Method == http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		s := &q.shards[maphash.String(q.seed, who.Key)&(shards-1)]
		if !s.enter(who.Key, q.most) {
			q.refused()
			accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, ReasonRequests)
			w.Header().Set("Retry-After", "1")
			w.Header().Set("Connection", "close") // the body is not read
			jsonrpc.WriteError(w, http.StatusTooManyRequests, nil, jsonrpc.CodeUnavailable,
				"there are "+strconv.Itoa(q.most)+" requests of yours running already; wait for one, or try again later")
			return
		}
		defer s.leave(who.Key)
		next.ServeHTTP(w, r)
	})
}

func (s *requestShard) enter(who string, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.running[who]
	if n >= most {
		return false
	}
	s.running[who] = n + 1
	return true
}

func (s *requestShard) leave(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.running[who]; n > 1 {
		s.running[who] = n - 1
		return
	}
	delete(s.running, who)
}
