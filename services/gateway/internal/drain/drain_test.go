package drain

import (
	"context"
	"errors"
	"testing"
)

func TestStreamsEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	d := New()
	before, detach := d.Attach(t.Context())
	defer detach()
	over, detachOver := d.Attach(t.Context())
	detachOver()
	d.Begin()
	after, detachAfter := d.Attach(t.Context())
	defer detachAfter()
	for name, ctx := range map[string]context.Context{"attached before": before, "attached after": after} {
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, ErrDraining) {
			t.Errorf("%s: cause %v, want ErrDraining", name, cause)
		}
	}
	if cause := context.Cause(over); errors.Is(cause, ErrDraining) {
		t.Error("a stream that was over was told to end")
	}
}
