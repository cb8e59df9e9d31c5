package stack

import (
	"net"
	"strings"
	"testing"
)

// An offset that leads a browser to a blocked port costs the person the login.
func TestPortsThatCannotBeUsedAreNamed(t *testing.T) {
	t.Parallel()
	if err := DefaultPorts(2000).checkFree(t.Context()); err == nil || !strings.Contains(err.Error(), "port 10080, for authserver\n") {
		t.Errorf("a port that browsers block: %v", err)
	}
	free, err := FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free.AuthserverGRPC = l.Addr().(*net.TCPAddr).Port
	if err := free.checkFree(t.Context()); err == nil || !strings.Contains(err.Error(), "for authserver gRPC\n") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// A stack whose server is away for a moment finds its port taken otherwise.
func TestPortsOfOneStackAreNeverGivenToAnother(t *testing.T) {
	t.Parallel()
	taken := map[int]bool{}
	for range 50 {
		p, err := FreePorts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.each(func(name string, port *int) {
			if taken[*port] {
				t.Errorf("port %d, for %s, was given away before", *port, name)
			}
			taken[*port] = true
		})
	}
}
