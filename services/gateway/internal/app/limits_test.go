package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestOnePersonHasSoManyRequestsAtATime(t *testing.T) {
	entered, release := make(chan struct{}, 4), make(chan struct{})
	g := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "slow") {
			entered <- struct{}{}
			<-release
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
	}), "--max-requests", "2")
	do := func(person, path, tool string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.public+path,
			strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`"}}`))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Authorization", "Bearer "+g.issuer.Token(person, "session-of-"+person, "http://"+g.public+"/mcp", nil))
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	slow := make(chan error, 2)
	for _, path := range []string{"/mcp/repos", "/mcp/status"} { // whatever the endpoint
		go func() {
			_, err := do("alice", path, "slow")
			slow <- err
		}()
		<-entered
	}
	for _, path := range []string{"/mcp", "/mcp/repos"} {
		resp, err := do("alice", path, "fast")
		if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
			t.Errorf("a third request at %s: %v %v", path, resp, err)
		}
	}
	if resp, err := do("bob", "/mcp/repos", "fast"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("another person: %v %v", resp, err)
	}
	_, metrics := get(t, "http://"+g.admin+"/metrics", "")
	if !strings.Contains(metrics, `chatelaine_gateway_limits_refused_total{`) || !strings.Contains(metrics, "chatelaine_gateway_memory_buffered_bytes") {
		t.Error("the metrics do not say so")
	}
	close(release)
	for range 2 {
		if err := <-slow; err != nil {
			t.Error(err)
		}
	}
	if resp, err := do("alice", "/mcp/repos", "fast"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %v %v", resp, err)
	}
}
