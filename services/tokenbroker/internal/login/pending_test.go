package login_test

import (
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/login"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

func TestSomebodyWhoBeginsLoginsWithoutEndIsStoppedAndOthersGoOnLater(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *login.Config) { c.MaxPending = 3 })
	begin := func() error {
		_, err := f.BeginSession(t.Context(), &brokerv1.BeginSessionRequest{ClientId: clientID})
		return err
	}
	underWay := f.begin()
	must(t, begin())
	must(t, begin())
	err := begin()
	if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != reason.TooManyLogins || fault.From(err).RetryAfter == 0 {
		t.Fatalf("the fourth login: %v", err)
	}
	must(t, f.redeem(underWay, "octohub", "42", "at", "rt"))
	must(t, f.activate(underWay))
	for deadline := time.Now().Add(20 * time.Second); begin() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("no login can begin although one is done")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
