package backend

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/caller"
)

// raw is a server that answers each connection's request with text, and then
// waits for the other end to close.
func raw(t *testing.T, text string) (url string) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(c, text)
				_, _ = io.Copy(io.Discard, in)
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

// With 101 in particular, what a client sends next would go nowhere.
func TestAStatusThatIsNoneIsNotPassedOn(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]string{
		"101 Switching Protocols": ReasonUnavailable,
		"042 Odd":                 ReasonUnavailable,
		"600 Odd":                 ReasonUnavailable,
		"799 Odd":                 ReasonUnavailable,
		"200 OK":                  "",
		"418 Odd":                 "",
		"599 Odd":                 "",
	} {
		text := fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status)
		if status[:3] == "101" {
			text = fmt.Sprintf("HTTP/1.1 %s\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", status)
		}
		entry := entryFor(raw(t, text))
		c := newClient(t, entry, &fakeCredentials{}, nil)
		resp, err := c.Do(t.Context(), caller.AnonymousCaller(), &entry, &Request{Method: http.MethodPost, Body: []byte("{}")})
		if err == nil {
			_ = resp.Body.Close()
		}
		if got := fault.ReasonOf(err); got != want {
			t.Errorf("%s: %q, want %q (%v)", status, got, want, err)
		}
	}
}
