package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// credentialLoad calls GetCredential in a closed loop, over one connection as a
// gateway does.
type credentialLoad struct {
	broker  brokerv1.CredentialServiceClient
	request *brokerv1.GetCredentialRequest
	callers int
}

var errWrongCredential = errors.New("GetCredential answered without octohub's token")

// run calls until d has passed. The first error ends it.
func (l *credentialLoad) run(ctx context.Context, d time.Duration) (Sample, error) {
	latencies := make([][]time.Duration, l.callers)
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	end := start.Add(d)
	for i := range latencies {
		group.Go(func() error {
			for before := time.Now(); before.Before(end); {
				if err := l.call(ctx); err != nil {
					return err
				}
				now := time.Now()
				latencies[i] = append(latencies[i], now.Sub(before))
				before = now
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Sample{}, fmt.Errorf("GetCredential: %w", err)
	}
	return summarize(slices.Concat(latencies...), time.Since(start)), nil
}

func (l *credentialLoad) call(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := l.broker.GetCredential(ctx, l.request)
	if err != nil {
		return err
	}
	h := answer.GetHeaders()
	if len(h) != 1 || h[0].GetName() != "Authorization" || !strings.HasPrefix(h[0].GetValue(), "Bearer "+tokenPrefix) {
		return errWrongCredential
	}
	return nil
}
