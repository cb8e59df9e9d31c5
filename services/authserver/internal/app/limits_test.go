package app_test

import (
	"net/http"
	"strconv"
	"testing"
)

func TestAClientThatRefreshesInALoopIsHeldBackAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, got := s.connected()
	s.exec(`UPDATE authserver.grants SET rotations = 200`)
	refused := c.refresh(got.RefreshToken)
	wait, err := strconv.Atoi(refused.header.Get("Retry-After"))
	if refused.status != http.StatusTooManyRequests || refused.Error != "temporarily_unavailable" || err != nil || wait != 60 {
		t.Errorf("too many refreshes: %+v", refused)
	}
	s.exec(`UPDATE authserver.grants SET created_at = now() - interval '61 seconds'`)
	if next := c.refresh(got.RefreshToken); next.status != http.StatusOK {
		t.Errorf("a minute later: %+v", next)
	}
}
