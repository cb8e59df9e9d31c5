package limits

import (
	"errors"
	"hash/maphash"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/caller"
)

const (
	// Free is how many bytes a message may take that are not counted.
	Free = 64 << 10
	// defaultMemory is the budget, in bytes, of a process without a memory limit,
	// and leastMemory what it is at the least: the largest message must fit.
	defaultMemory = 512 << 20
	leastMemory   = 50 << 20
	// firstSize is what is read, in bytes, before anything is known of a message.
	firstSize = 8 << 10

	shards = 64 // a power of two
)

// ErrTooLarge is the error of what is larger than its own bound.
var ErrTooLarge = errors.New("limits: larger than the bound")

// Memory is a budget of bytes for what is held of messages. Only messages larger
// than Free count, so that small ones share nothing.
type Memory struct {
	size, share int64
	used        atomic.Int64
	refused     func()

	seed   maphash.Seed
	shards [shards]memoryShard
}

type memoryShard struct {
	mu   sync.Mutex
	held map[string]int64 // by person
	_    [64]byte         // keeps the locks of two shards off one cache line
}

// newMemory takes a quarter of the process's memory limit: an answer is there up
// to twice while it is sent on, and the caches take an eighth.
func newMemory(limit int64) *Memory {
	size := int64(defaultMemory)
	if limit != unlimited {
		size = min(defaultMemory, max(leastMemory, limit/4))
	}
	m := &Memory{size: size, share: size / 2, seed: maphash.MakeSeed(), refused: func() {}}
	for i := range m.shards {
		m.shards[i].held = make(map[string]int64)
	}
	return m
}

// Used returns how many bytes are taken.
func (m *Memory) Used() int64 { return m.used.Load() }

func (m *Memory) shard(who string) *memoryShard {
	return &m.shards[maphash.String(m.seed, who)&(shards-1)]
}

func (m *Memory) take(who string, n int64) bool {
	if m.used.Add(n) > m.size {
		m.used.Add(-n)
		return false
	}
	if who == "" {
		return true
	}
	s := m.shard(who)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[who]+n > m.share {
		m.used.Add(-n)
		return false
	}
	s.held[who] += n
	return true
}

func (m *Memory) give(who string, n int64) {
	if n == 0 {
		return
	}
	m.used.Add(-n)
	if who == "" {
		return
	}
	s := m.shard(who)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[who] -= n; s.held[who] == 0 {
		delete(s.held, who)
	}
}

// Lease is what one request, or one stream, has taken of the budget. The zero
// Lease takes nothing and is never refused. It is safe for concurrent use until
// Release.
type Lease struct {
	memory *Memory
	who    string
	held   atomic.Int64
}

// Begin makes l a lease of m for a person. m may be nil.
func (l *Lease) Begin(m *Memory, who *caller.Caller) {
	if l.memory = m; !who.Anonymous {
		l.who = who.Key
	}
}

// Take takes n bytes. The error is Unavailable with reason ReasonBusy.
func (l *Lease) Take(n int) error {
	if l == nil || l.memory == nil {
		return nil
	}
	if !l.memory.take(l.who, int64(n)) {
		l.memory.refused()
		return errBusy()
	}
	l.held.Add(int64(n))
	return nil
}

// Give gives n bytes of what was taken back.
func (l *Lease) Give(n int) {
	if l == nil || l.memory == nil {
		return
	}
	l.held.Add(-int64(n))
	l.memory.give(l.who, int64(n))
}

// Copy takes what a copy of n bytes costs.
func (l *Lease) Copy(n int) error {
	if n <= Free {
		return nil
	}
	return l.Take(n)
}

// Release gives back everything.
func (l *Lease) Release() {
	if l != nil && l.memory != nil {
		l.memory.give(l.who, l.held.Swap(0))
	}
}

// ReadAll reads src to its end, into buf from its start as far as it goes; the
// lease keeps what the result takes. expect is how long src says that it is, or
// less than zero. Errors are ErrTooLarge for more than limit bytes, that of Take,
// or that of src.
func (l *Lease) ReadAll(buf []byte, src io.Reader, limit, expect int64) ([]byte, error) {
	if expect > limit {
		return nil, ErrTooLarge
	}
	if err := l.Copy(cap(buf)); err != nil {
		return nil, err
	}
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			bigger := grown(int64(cap(buf)), limit, expect)
			if err := l.Copy(bigger); err != nil {
				return nil, err
			}
			old := cap(buf)
			buf = append(make([]byte, 0, bigger), buf...)
			if old > Free {
				l.Give(old)
			}
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > limit:
			return nil, ErrTooLarge
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, err
		}
	}
}

// grown is the size that comes after one. A message gets what it says that it
// needs only when the half of it is there: words cost nothing.
func grown(size, limit, expect int64) int {
	next := max(firstSize, 2*size)
	whole := expect + 1 // one more, to see the end without growing
	switch {
	case expect < 0 || size >= whole:
	case size == 0 && whole <= Free, next > whole:
		next = whole
	case size == 0:
		next = Free
	}
	if next >= limit { // the last step, not one byte before it
		next = limit + 1
	}
	return int(next)
}

func errBusy() error {
	return fault.New(fault.Unavailable, "the gateway has too many large messages at the moment; try again shortly").
		WithReason(ReasonBusy).WithRetryAfter(5 * time.Second)
}
