package stack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Ports are the TCP ports of a stack, all on the loopback interface.
type Ports struct {
	Authserver, AuthserverGRPC, AuthserverAdmin int
	Gateway, GatewayAdmin                       int
	Broker, BrokerREST, BrokerAdmin             int
	Corp, Octohub                               int
	Repos, Payroll, Status                      int
	// Faults are the loopback ports of the examples' fault switches.
	CorpFaults, OctohubFaults, ReposFaults, PayrollFaults, StatusFaults int
}

// DefaultPorts are the ports that the documentation uses, each moved by offset.
func DefaultPorts(offset int) Ports {
	p := Ports{
		Authserver: 8080, AuthserverGRPC: 8082, AuthserverAdmin: 8081,
		Gateway: 8000, GatewayAdmin: 8001,
		Broker: 9090, BrokerREST: 9091, BrokerAdmin: 9092,
		Corp: 5556, Octohub: 5557,
		Repos: 7001, Payroll: 7002, Status: 7003,
		CorpFaults: 5656, OctohubFaults: 5657,
		ReposFaults: 7101, PayrollFaults: 7102, StatusFaults: 7103,
	}
	p.each(func(_ string, port *int) { *port += offset })
	return p
}

// Stacks of tests and benchmarks take their ports in blocks from below the range that systems use for
// outgoing connections and for listeners without a port, so that nothing takes one
// by chance before the stack does.
const (
	firstFree  = 20000
	blockSize  = 32 // of Ports, and some to spare
	freeBlocks = 375
)

// FreePorts returns ports that nobody listens on, for stacks that run beside each
// other. They are this process's own until it ends, also while no server of the
// stack is running: no other call returns them, in any process of this user.
func FreePorts(ctx context.Context) (Ports, error) {
	locks := filepath.Join(os.TempDir(), "chatelaine-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(locks, 0o700); err != nil {
		return Ports{}, err
	}
	for _, block := range rand.Perm(freeBlocks) {
		release, err := lockFile(filepath.Join(locks, strconv.Itoa(block)))
		if err != nil {
			return Ports{}, err
		}
		if release == nil {
			continue
		}
		var p Ports
		next := firstFree + block*blockSize
		p.each(func(_ string, port *int) { *port, next = next, next+1 })
		if p.checkFree(ctx) == nil {
			return p, nil // keeping the lock
		}
		release()
	}
	return Ports{}, fmt.Errorf("no free ports between %d and %d", firstFree, firstFree+freeBlocks*blockSize)
}

// lockFile locks a file for as long as this process lives, or until release.
// release is nil when somebody has the lock.
func lockFile(path string) (release func(), err error) {
	// Not an os.File, which is closed when it is garbage.
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	release = func() { _ = syscall.Close(fd) }
	switch err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return release, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		release()
		return nil, nil
	default:
		release()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
}

// FreeOffset picks an offset of DefaultPorts that leads to ports that nobody
// listens on, for tests of programs that take an offset. Its ports are below those
// of FreePorts.
func FreeOffset(ctx context.Context) (int, error) {
	const first, count, attempts = 5000, 5000, 1000
	var err error
	for range attempts {
		offset := first + rand.IntN(count)
		if err = DefaultPorts(offset).checkFree(ctx); err == nil {
			return offset, nil
		}
	}
	return 0, err
}

// each calls f for every port with the name of its listener.
func (p *Ports) each(f func(name string, port *int)) {
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		f(v.Type().Field(i).Name, v.Field(i).Addr().Interface().(*int))
	}
}

// blocked are ports that browsers refuse to open (WHATWG Fetch, section 2.9, port
// blocking), of those that an offset can lead to.
var blocked = []int{5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}

// checkFree names every port that somebody else listens on, or that a person's
// browser would not open.
func (p Ports) checkFree(ctx context.Context) error {
	var taken, refused []string
	p.each(func(name string, port *int) {
		if slices.Contains(blocked, *port) {
			refused = append(refused, fmt.Sprintf("  port %d, for %s", *port, words(name)))
		}
		l, err := listen(ctx, *port)
		if err != nil {
			taken = append(taken, fmt.Sprintf("  port %d, for %s", *port, words(name)))
			return
		}
		l.Close()
	})
	if len(refused) > 0 {
		return fmt.Errorf("browsers refuse to open these ports:\n%s\nmove all ports elsewhere: make up PORT_OFFSET=1000", strings.Join(refused, "\n"))
	}
	if len(taken) == 0 {
		return nil
	}
	return fmt.Errorf("these ports are taken:\n%s\nstop what listens there (another \"make up\"? ss -ltnp tells), or move all ports: make up PORT_OFFSET=1000", strings.Join(taken, "\n"))
}

var inner = regexp.MustCompile(`([a-z])([A-Z])`)

// words is a listener's name as people read it: "authserver gRPC".
func words(name string) string {
	parts := strings.Fields(inner.ReplaceAllString(name, "$1 $2"))
	for i, part := range parts {
		switch part {
		case "GRPC":
			parts[i] = "gRPC"
		case "REST":
		default:
			parts[i] = strings.ToLower(part)
		}
	}
	return strings.Join(parts, " ")
}

func listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
}

var localURL = regexp.MustCompile(`localhost:(\d+)`)

// Rewrite replaces the documented ports in text by the stack's own.
func (p Ports) Rewrite(text string) string {
	documented := DefaultPorts(0)
	moved := map[string]int{}
	to := reflect.ValueOf(p)
	from := reflect.ValueOf(documented)
	for i := range from.NumField() {
		moved[strconv.FormatInt(from.Field(i).Int(), 10)] = int(to.Field(i).Int())
	}
	return localURL.ReplaceAllStringFunc(text, func(match string) string {
		if port, ok := moved[strings.TrimPrefix(match, "localhost:")]; ok {
			return "localhost:" + strconv.Itoa(port)
		}
		return match
	})
}
