package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
)

// healthcheckCmd asks a running service of this host how it is, for containers
// that have no other program in them.
type healthcheckCmd struct {
	Admin
	Live    bool          `env:"-" help:"Ask whether the process is alive, not whether it is ready."`
	Timeout time.Duration `env:"-" default:"3s" help:"How long the answer may take (${default})."`
}

const maxHealthBytes = 64 << 10

func (c *healthcheckCmd) run(ctx context.Context, out io.Writer) error {
	if c.Timeout <= 0 {
		return fault.New(fault.Invalid, "--timeout must be greater than zero")
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	path := "/readyz"
	if c.Live {
		path = "/healthz"
	}
	status, body, err := get(ctx, c.AdminAddress, path)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "no answer from the admin address "+c.AdminAddress+"; is the service running, and is this its --admin-address?")
	}
	var report telemetry.Report
	if err := json.Unmarshal(body, &report); err != nil || report.Status == "" {
		return fault.Newf(fault.Unavailable, "%s answered %d, and not as our admin address does", c.AdminAddress, status)
	}
	if status != http.StatusOK {
		return fault.New(fault.Unavailable, failing(report))
	}
	fmt.Fprintln(out, report.Status)
	return nil
}

// failing names the checks that fail.
func failing(report telemetry.Report) string {
	text := []string{"not ready: " + report.Status}
	for _, name := range slices.Sorted(maps.Keys(report.Checks)) {
		if answer := report.Checks[name]; answer != "ok" {
			text = append(text, name+": "+answer)
		}
	}
	return strings.Join(text, "; ")
}

// get makes one request to an address as the service listens on it: without a
// host, or with an unspecified one, this host is meant.
func get(ctx context.Context, address, path string) (status int, body []byte, err error) {
	var dialer net.Dialer
	transport := &http.Transport{ // no proxy: the service is on this host
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		DisableKeepAlives: true,
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxHealthBytes))
	return resp.StatusCode, body, err
}
