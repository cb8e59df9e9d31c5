package app

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"chatelaine.dev/internal/fault"
)

// healthTimeout bounds the health check.
const healthTimeout = 2 * time.Second

// healthcheckCmd is for containers without a shell, which can run nothing else.
type healthcheckCmd struct {
	URL *url.URL `arg:"" help:"What answers 200 while the server is up."`
}

// run asks once.
func (c *healthcheckCmd) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL.String(), nil)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "cannot ask "+c.URL.String())
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "no answer")
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return fault.Newf(fault.Unavailable, "%s answered %s", c.URL, resp.Status)
	}
	return nil
}
