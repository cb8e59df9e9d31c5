package sse

import (
	"bytes"
	"cmp"
	"errors"
	"io"
)

// DefaultMaxEvent bounds one event in bytes, its data and everything else.
const DefaultMaxEvent = 16 << 20

// ErrTooLarge is the error of an event that is larger than the bound.
var ErrTooLarge = errors.New("sse: an event is larger than the bound")

// Event is one event. Those of a Reader are good until its next call of Next.
type Event struct {
	// ID is the field id; HasID tells an empty one from a missing one.
	ID    []byte
	HasID bool
	// Name is the field event; empty means "message".
	Name []byte
	// Data is the field data, its lines joined by LF; HasData tells empty data
	// from none. An event without is not dispatched, but its id counts.
	Data    []byte
	HasData bool
	// Retry is the field retry as it stands; empty when there is none.
	Retry []byte
}

const (
	startSize = 4 << 10
	keepSize  = 64 << 10 // a buffer that grew beyond is given up after its event
)

// Budget is asked before a reader takes more memory than it keeps anyway.
type Budget interface {
	Take(n int) error
	Give(n int)
}

var bom = []byte("\xef\xbb\xbf")

// Reader reads events. It is not safe for concurrent use.
type Reader struct {
	// Budget, when set, is where memory for events larger than 64 KiB comes from.
	// What the last one took is not given back by itself.
	Budget Budget

	src io.Reader
	max int
	err error // what src said last

	// buf[start:end] has been read from src and belongs to no event yet.
	buf        []byte
	start, end int
	joined     []byte // data of an event with several data lines
	first      bool   // a BOM may stand here
	afterCR    bool   // an LF here belongs to the line end before
}

// NewReader returns a reader of src whose events are at most maxEvent bytes
// (0 means DefaultMaxEvent).
func NewReader(src io.Reader, maxEvent int) *Reader {
	if maxEvent <= 0 {
		maxEvent = DefaultMaxEvent
	}
	return &Reader{src: src, max: maxEvent, first: true}
}

// Next returns the next event as soon as the byte that ends it is there. The
// error at the end of the stream is io.EOF, or io.ErrUnexpectedEOF when the end
// cut an event off; ErrTooLarge; that of the source; or that of the Budget.
func (r *Reader) Next() (Event, error) {
	if r.start == r.end && len(r.buf) > keepSize {
		r.give(len(r.buf))
		r.buf, r.start, r.end = nil, 0, 0
	}
	if cap(r.joined) > keepSize { // and what its writer needed
		r.give(cap(r.joined))
		r.give(cap(r.joined))
		r.joined = nil
	}
	size, err := r.eventSize()
	if err != nil {
		return Event{}, err
	}
	raw := r.buf[r.start : r.start+size : r.start+size]
	r.start += size
	ev, err := r.parse(raw)
	if err != nil {
		return Event{}, err
	}
	r.first = false
	r.afterCR = raw[len(raw)-1] == '\r'
	return ev, nil
}

// eventSize returns the number of bytes up to the end of the first empty line.
func (r *Reader) eventSize() (int, error) {
	at, line := 0, 0 // what was looked at, and where the line starts, from r.start
	skipLF := r.afterCR
	for {
		window := r.buf[r.start:r.end]
		for at < len(window) {
			if skipLF {
				skipLF = false
				if window[at] == '\n' {
					at++
					line = at
					continue
				}
			}
			n := bytes.IndexAny(window[at:], "\r\n")
			if n < 0 {
				at = len(window)
				break
			}
			eol := at + n
			at = eol + 1
			if !r.blank(window[line:eol], line) {
				skipLF = window[eol] == '\r'
				line = at
				continue
			}
			if window[eol] == '\r' && at < len(window) && window[at] == '\n' {
				at++
			}
			if at > r.max {
				return 0, ErrTooLarge
			}
			return at, nil
		}
		if r.end-r.start > r.max {
			return 0, ErrTooLarge
		}
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && r.end > r.start {
				return 0, io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// blank reports whether a line is empty; a BOM at the start does not count.
func (r *Reader) blank(line []byte, at int) bool {
	return len(line) == 0 || r.first && at == 0 && bytes.Equal(line, bom)
}

// fill reads more, after making room.
func (r *Reader) fill() error {
	if r.err != nil {
		return r.err
	}
	if r.start > 0 && r.end == len(r.buf) {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end == len(r.buf) {
		size := max(startSize, min(2*len(r.buf), r.max+startSize))
		if err := r.take(size); err != nil {
			return err
		}
		bigger := make([]byte, size)
		r.end = copy(bigger, r.buf[:r.end])
		r.give(len(r.buf))
		r.buf = bigger
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// take and give count what is larger than a reader keeps.
func (r *Reader) take(n int) error {
	if n <= keepSize || r.Budget == nil {
		return nil
	}
	return r.Budget.Take(n)
}

func (r *Reader) give(n int) {
	if n > keepSize && r.Budget != nil {
		r.Budget.Give(n)
	}
}

// parse reads the fields of an event.
func (r *Reader) parse(raw []byte) (Event, error) {
	var ev Event
	rest := raw
	if r.afterCR {
		rest = bytes.TrimPrefix(rest, []byte{'\n'})
	}
	if r.first {
		rest = bytes.TrimPrefix(rest, bom)
	}
	lines := 0
	for len(rest) > 0 {
		n := bytes.IndexAny(rest, "\r\n")
		if n < 0 {
			break
		}
		line := rest[:n]
		if rest[n] == '\r' && n+1 < len(rest) && rest[n+1] == '\n' {
			n++
		}
		rest = rest[n+1:]
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "data":
			if err := r.addData(&ev, value, lines, len(raw)); err != nil {
				return Event{}, err
			}
			lines++
		case "id":
			if bytes.IndexByte(value, 0) < 0 { // such an id is ignored
				ev.ID, ev.HasID = value, true
			}
		case "event":
			ev.Name = value
		case "retry":
			ev.Retry = value
		}
	}
	return ev, nil
}

// addData copies only when there is more than one line, into a buffer of the
// event's size. A writer of such an event needs as much again.
func (r *Reader) addData(ev *Event, value []byte, lines, size int) error {
	ev.HasData = true
	switch lines {
	case 0:
		ev.Data = value
		return nil
	case 1:
		if cap(r.joined) < size {
			if err := cmp.Or(r.take(size), r.take(size)); err != nil {
				return err
			}
			r.joined = make([]byte, size)
		}
		r.joined = append(r.joined[:0], ev.Data...)
	}
	r.joined = append(append(r.joined, '\n'), value...)
	ev.Data = r.joined
	return nil
}
