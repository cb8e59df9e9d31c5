package sse

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

type plain struct{ ID, Name, Data, Retry string }

func readAll(t *testing.T, src io.Reader, maxEvent int) (events []plain, err error) {
	t.Helper()
	r := NewReader(src, maxEvent)
	for {
		ev, err := r.Next()
		if err != nil {
			return events, err
		}
		if ev.HasID || ev.HasData || len(ev.Name) > 0 || len(ev.Retry) > 0 {
			events = append(events, plain{string(ev.ID), string(ev.Name), string(ev.Data), string(ev.Retry)})
		}
	}
}

func TestReaderUnderstandsEveryLineEndOfTheStandard(t *testing.T) {
	t.Parallel()
	want := []plain{
		{Name: "message", ID: "1", Data: "a\nb"},
		{ID: "2", Data: `{"x":1}`},
		{Data: ""},
		{Retry: "500"},
	}
	lines := []string{
		"event: message", "id:1", "data: a", "data:b", "",
		": keep-alive", "",
		"id: 2", "data: {\"x\":1}", "",
		"data", "",
		"retry: 500", "",
	}
	for name, eol := range map[string]string{"LF": "\n", "CRLF": "\r\n", "CR": "\r"} {
		stream := strings.Join(lines, eol) + eol
		for readers, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader,
		} {
			t.Run(name+"/"+readers, func(t *testing.T) {
				t.Parallel()
				for _, start := range []string{"", "\xef\xbb\xbf"} {
					got, err := readAll(t, wrap(strings.NewReader(start+stream)), 0)
					// With CRs, byte by byte, an LF may be read after its event.
					if !errors.Is(err, io.EOF) && (name != "CRLF" || !errors.Is(err, io.ErrUnexpectedEOF)) {
						t.Fatalf("error %v, want EOF", err)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("events differ (-want +got):\n%s", diff)
					}
				}
			})
		}
	}
}

func TestReaderDeliversAnEventBeforeTheNextOneBegins(t *testing.T) {
	t.Parallel()
	src, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	r := NewReader(src, 0)
	for _, eol := range []string{"\n", "\r", "\r\n"} {
		go w.Write([]byte("data: now" + eol + eol)) // the stream stays open: Next must not wait for more
		ev, err := r.Next()
		if err != nil || string(ev.Data) != "now" {
			t.Fatalf("Next() = %q, %v", ev.Data, err)
		}
	}
}

func TestReaderRefusesAnEventThatWouldFillMemory(t *testing.T) {
	t.Parallel()
	endless := io.MultiReader(strings.NewReader("data: "), neverEnding('x'))
	if _, err := readAll(t, endless, 1<<16); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("error %v, want ErrTooLarge", err)
	}
	lines := io.MultiReader(strings.NewReader("data: x\n"), neverEnding('\x00'))
	if _, err := readAll(t, lines, 1<<16); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("error %v, want ErrTooLarge", err)
	}
}

func TestALargeEventIsFollowedByOthers(t *testing.T) {
	t.Parallel()
	for _, size := range []int{keepSize - 20, keepSize + 1, 2 << 20} {
		for name, data := range map[string]string{"one line": strings.Repeat("x", size), "lines": strings.Repeat("x\n", size/2) + "x"} {
			stream := func() io.Reader { // an event at a time, as they come from a server
				var parts []io.Reader
				for _, d := range []string{data, "between", data, "last"} {
					parts = append(parts, bytes.NewReader(Append(nil, Event{Data: []byte(d)})))
				}
				return io.MultiReader(parts...)
			}
			r := NewReader(stream(), 0)
			all := &budget{}
			r.Budget = all
			for _, want := range []string{data, "between", data, "last"} {
				ev, err := r.Next()
				if err != nil || string(ev.Data) != want {
					t.Fatalf("%s of %d bytes: %d bytes, want %d; %v", name, size, len(ev.Data), len(want), err)
				}
			}
			if all.held != 0 {
				t.Errorf("%s of %d bytes: %d bytes were not given back", name, size, all.held)
			}
			if size > keepSize && all.peak < size {
				t.Errorf("%s of %d bytes: only %d were asked for", name, size, all.peak)
			}
			small := &budget{most: size - 1}
			r = NewReader(stream(), 0)
			r.Budget = small
			if _, err := r.Next(); size > keepSize && !errors.Is(err, errBudget) {
				t.Errorf("%s of %d bytes, without the memory for it: %v", name, size, err)
			}
		}
	}
}

var errBudget = errors.New("none left")

// budget is for one reader; with most, of that many bytes.
type budget struct{ held, peak, most int }

func (b *budget) Take(n int) error {
	if b.most > 0 && b.held+n > b.most {
		return errBudget
	}
	b.held += n
	b.peak = max(b.peak, b.held)
	return nil
}

func (b *budget) Give(n int) { b.held -= n }

func TestWriterWritesALargeEventAsAnyOther(t *testing.T) {
	t.Parallel()
	for _, data := range []string{strings.Repeat("x", keepSize+1), strings.Repeat("x", keepSize) + "\ny", strings.Repeat("x", keepSize) + "\x00"} {
		ev := Event{ID: []byte("1"), HasID: true, Name: []byte("message"), Retry: []byte("5"), Data: []byte(data), HasData: true}
		rec := httptest.NewRecorder()
		w := NewWriter(rec)
		for range 2 {
			if err := w.Write(ev); err != nil || !rec.Flushed {
				t.Fatalf("flushed %v, error %v", rec.Flushed, err)
			}
		}
		if want := append(Append(nil, ev), Append(nil, ev)...); !bytes.Equal(rec.Body.Bytes(), want) {
			t.Errorf("%d bytes, want %d", rec.Body.Len(), len(want))
		}
	}
}

func TestReaderTellsACutStreamFromAnEndedOne(t *testing.T) {
	t.Parallel()
	got, err := readAll(t, strings.NewReader("data: 1\n\ndata: 2\n"), 0)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 1 {
		t.Fatalf("%v, %v; want one event and ErrUnexpectedEOF", got, err)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestAppendCannotBeMadeToStartAnotherField(t *testing.T) {
	t.Parallel()
	out := Append(nil, Event{
		HasID: true, ID: []byte("1\ndata: forged"), Name: []byte("a\rdata: forged"),
		HasData: true, Data: []byte("x\r\ny\nid: 9"),
	})
	got, err := readAll(t, bytes.NewReader(out), 0)
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	want := []plain{{ID: "1data: forged", Name: "adata: forged", Data: "x\ny\nid: 9"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}

func TestWriterFlushesEachEvent(t *testing.T) {
	t.Parallel()
	rec := httptest.NewRecorder()
	w := NewWriter(rec)
	if err := w.Write(Event{Data: []byte("1")}); err != nil || !rec.Flushed {
		t.Fatalf("flushed %v, error %v", rec.Flushed, err)
	}
	if err := w.WriteRaw([]byte("data: 2\n\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Comment("ping\nid: 7"); err != nil {
		t.Fatal(err)
	}
	if got, want := rec.Body.String(), "data: 1\n\ndata: 2\n\n: pingid: 7\n\n"; got != want {
		t.Errorf("body %q, want %q", got, want)
	}
}

func FuzzReaderAgreesWithItself(f *testing.F) {
	for _, seed := range []string{"data: 1\n\n", "\r\r\n\n\r", "id\n:c\r\ndata:\r\n\r\nx", "\xef\xbb\xbf\n\ndata:a\rdata:b\r\r"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, _ := readAll(t, bytes.NewReader(stream), 1<<16)
		pieces, _ := readAll(t, iotest.OneByteReader(bytes.NewReader(stream)), 1<<16)
		if diff := cmp.Diff(whole, pieces); diff != "" {
			t.Fatalf("events depend on how the stream is read (-whole +pieces):\n%s", diff)
		}
	})
}
