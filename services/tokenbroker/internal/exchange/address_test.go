package exchange_test

import (
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
)

// Who reads why a token service was not asked must not look for a field that
// tokenExchange does not have.
func TestARefusedAddressIsExplainedInTheWordsOfTokenExchange(t *testing.T) {
	t.Parallel()
	strategy := (&sts{}).strategy()
	strategy.TokenURL = "http://169.254.10.10/token"
	clk := &clock{now: time.Now()}
	c := newClient(t, strategy, exchange.NewCache(0, clk.Now), clk)
	_, err := c.Token(t.Context(), subject("1", 1))
	if text := fault.Detail(err); err == nil || !strings.Contains(text, "tokenUrl") || strings.Contains(text, "allowPrivateIPs") {
		t.Errorf("it says %s", text)
	}
}
