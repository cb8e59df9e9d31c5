package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/examples/journey"
)

// metric is the sum of the series of that name that have all the labels.
func (h *house) metric(t *testing.T, service, name string, labels ...string) float64 {
	t.Helper()
	_, body := get(t, h.admin(service)+"/metrics")
	sum := 0.0
	for line := range strings.Lines(body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok {
			series, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		metric, has, _ := strings.Cut(series, "{")
		if !ok || metric != name || !containsAll(has, labels) {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += f
	}
	return sum
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// counter remembers what a metric was; moved waits until it is more.
func (h *house) counter(t *testing.T, service, name string, labels ...string) (moved func()) {
	t.Helper()
	before := h.metric(t, service, name, labels...)
	return func() {
		t.Helper()
		eventually(t, func() string {
			if now := h.metric(t, service, name, labels...); now <= before {
				return fmt.Sprintf("%s of %s with %v stays at %v", name, service, labels, now)
			}
			return ""
		})
	}
}

// expectMetric waits until a metric has a value.
func (h *house) expectMetric(t *testing.T, want float64, service, name string, labels ...string) {
	t.Helper()
	eventually(t, func() string {
		if got := h.metric(t, service, name, labels...); got != want {
			return fmt.Sprintf("%s of %s with %v is %v, want %v", name, service, labels, got, want)
		}
		return ""
	})
}

// notebook reads what the services log from its making on.
type notebook struct {
	house *house
	from  map[string]int64
}

func (h *house) notebook(t *testing.T) *notebook {
	t.Helper()
	n := &notebook{house: h, from: map[string]int64{}}
	for _, service := range services {
		info, err := os.Stat(h.stack.Log(service))
		if err != nil {
			t.Fatal(err)
		}
		n.from[service] = info.Size()
	}
	return n
}

// lines are those of a service that have all the parts.
func (n *notebook) lines(t *testing.T, service string, parts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(n.house.stack.Log(service))
	if err != nil {
		t.Fatal(err)
	}
	if from := n.from[service]; from <= int64(len(text)) { // else it was started anew
		text = text[from:]
	}
	var found []string
	for line := range bytes.Lines(text) {
		if containsAll(string(line), parts) {
			found = append(found, strings.TrimSpace(string(line)))
		}
	}
	return found
}

// any waits for a line with all the parts.
func (n *notebook) any(t *testing.T, service string, parts ...string) {
	t.Helper()
	eventually(t, func() string {
		if len(n.lines(t, service, parts...)) == 0 {
			return fmt.Sprintf("%s logs nothing with %q", service, parts)
		}
		return ""
	})
}

// answer is what an MCP client gets.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Took   time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d after %s: %.400s", a.Status, a.Took.Round(time.Millisecond), a.Body)
}

// tool calls a tool once, without a session, as the client of a token.
func (h *house) tool(ctx context.Context, token, name string) (answer, error) {
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `","arguments":{},"_meta":{` +
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"raw","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.stack.MCPURL(), strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + token,
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name,
	} {
		req.Header.Set(k, v)
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), time.Since(began)}, err
}

func (h *house) call(t *testing.T, token, name string) answer {
	t.Helper()
	a, err := h.tool(t.Context(), token, name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// works waits until the person's tools answer, of each backend.
func (h *house) works(t *testing.T, login *journey.Login, p person) {
	t.Helper()
	for tool, want := range map[string]string{"repos_whoami": p.Login, "payroll_whoami": p.Name, "status_service_status": "corp"} {
		eventually(t, func() string {
			if a := h.call(t, login.Token.AccessToken, tool); a.Status != http.StatusOK || !strings.Contains(a.Body, want) {
				return fmt.Sprintf("%s answers %s", tool, a)
			}
			return ""
		})
	}
}

// form posts to the authorization server.
func (h *house) form(t *testing.T, path, body string) answer {
	t.Helper()
	a, err := h.post(t.Context(), path, body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (h *house) post(ctx context.Context, path, body string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.stack.Issuer()+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), time.Since(began)}, err
}

// refresh is the client's refresh request.
func (h *house) refresh(t *testing.T, login *journey.Login) answer {
	t.Helper()
	return h.form(t, "/oauth/token", "grant_type=refresh_token&client_id="+login.Client.ID+"&refresh_token="+login.Token.RefreshToken)
}

// page is what a person sees who begins a login.
func (h *house) page(t *testing.T, client *journey.Client) answer {
	t.Helper()
	began := time.Now()
	resp, body := get(t, client.Authorize().URL)
	return answer{resp.StatusCode, resp.Header, body + resp.Header.Get("Location"), time.Since(began)}
}

// requests is how often a provider was asked for a grant, and how often it agreed.
type requests struct{ Requests, Succeeded int }

// count asks a provider's fault port.
func count(t *testing.T, port int, grant string) requests {
	t.Helper()
	_, body := get(t, "http://"+local(port)+"/requests")
	counts := map[string]requests{}
	if err := json.Unmarshal([]byte(body), &counts); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return counts[grant]
}
