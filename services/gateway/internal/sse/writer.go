package sse

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// Append appends an event. Line ends within ID, Name and Retry are left out, so
// that they cannot start another field; data is cut into lines.
func Append(dst []byte, ev Event) []byte {
	if ev.HasID {
		dst = appendField(dst, "id: ", ev.ID)
	}
	if len(ev.Name) > 0 {
		dst = appendField(dst, "event: ", ev.Name)
	}
	if len(ev.Retry) > 0 {
		dst = appendField(dst, "retry: ", ev.Retry)
	}
	if ev.HasData || len(ev.Data) > 0 {
		rest := ev.Data
		for {
			n := bytes.IndexAny(rest, "\r\n")
			if n < 0 {
				break
			}
			dst = appendField(dst, "data: ", rest[:n])
			if rest[n] == '\r' && n+1 < len(rest) && rest[n+1] == '\n' {
				n++
			}
			rest = rest[n+1:]
		}
		dst = appendField(dst, "data: ", rest)
	}
	return append(dst, '\n')
}

func appendField(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	if !bytes.ContainsAny(value, "\r\n\x00") {
		return append(append(dst, value...), '\n')
	}
	for _, c := range value {
		if c != '\r' && c != '\n' && c != 0 {
			dst = append(dst, c)
		}
	}
	return append(dst, '\n')
}

// Writer writes events to a client, each at once. It is safe for concurrent use.
type Writer struct {
	mu      sync.Mutex
	dst     io.Writer
	control *http.ResponseController
	buf     []byte
}

// NewWriter sets the headers of an event stream and returns its writer. The
// status goes out with the first write; call Start to send it before.
func NewWriter(w http.ResponseWriter) *Writer {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events
	return &Writer{dst: w, control: http.NewResponseController(w)}
}

// Start sends the headers.
func (w *Writer) Start() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.control.Flush()
}

// Write writes an event; see Append. Large data of one line is not copied.
func (w *Writer) Write(ev Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(ev.Data) > keepSize && !bytes.ContainsAny(ev.Data, "\r\n\x00") {
		return w.large(ev)
	}
	w.buf = Append(w.buf[:0], ev)
	err := w.send(w.buf)
	if cap(w.buf) > keepSize {
		w.buf = nil
	}
	return err
}

func (w *Writer) large(ev Event) error {
	data := ev.Data
	ev.Data, ev.HasData = nil, false
	head := Append(w.buf[:0], ev)
	w.buf = append(head[:len(head)-1], "data: "...) // in place of the empty line
	if _, err := w.dst.Write(w.buf); err != nil {
		return err
	}
	if _, err := w.dst.Write(data); err != nil {
		return err
	}
	return w.send(append(w.buf[:0], "\n\n"...))
}

// WriteRaw writes bytes that make up one event, as Append returns them.
func (w *Writer) WriteRaw(raw []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.send(raw)
}

// Comment writes a comment of one line, which clients ignore.
func (w *Writer) Comment(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.send(append(appendField(nil, ": ", []byte(text)), '\n'))
}

func (w *Writer) send(b []byte) error {
	if _, err := w.dst.Write(b); err != nil {
		return err
	}
	return w.control.Flush()
}
