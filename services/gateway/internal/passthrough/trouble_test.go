package passthrough_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
)

// parsed is a JSON-RPC answer.
type parsed struct {
	ID     any `json:"id"`
	Result *struct {
		ResultType string `json:"resultType"`
		IsError    bool   `json:"isError"`
		Content    []struct{ Text string }
	} `json:"result"`
	Error *struct {
		Code    int
		Message string
		Data    map[string]string
	} `json:"error"`
}

func parse(t *testing.T, a answer) parsed {
	t.Helper()
	var p parsed
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%d, not JSON: %v: %s", a.status, err, a.body)
	}
	return p
}

func TestOneRefusalByTheBackendGoesUnnoticed(t *testing.T) {
	t.Parallel()
	real := mcpServer(&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}, nil)
	backend := &counted{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+gatewaytest.Token("alice", "repos", 1) {
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://evil.example/"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		real.ServeHTTP(w, r)
	})}
	g := newGateway(t, options{}, map[string]http.Handler{"repos": backend})
	a := g.do("alice", http.MethodPost, "/mcp/repos", whoami, nil)
	if a.status != http.StatusOK || !strings.Contains(a.body, gatewaytest.Token("alice", "repos", 2)) {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	if n := len(backend.headers()); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
	if g.broker.Reports() != 1 {
		t.Errorf("%d reports, want 1", g.broker.Reports())
	}
	g.do("alice", http.MethodPost, "/mcp/repos", whoami, nil)
	if n := len(backend.headers()); n != 3 {
		t.Errorf("%d requests after the next call, want 3: the new credential is not kept", n)
	}
}

func TestBackendThatAlwaysRefusesIsNotOurRefusal(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", "Bearer")
				w.WriteHeader(status)
			})})
			a := g.do("alice", http.MethodPost, "/mcp/repos", whoami, nil)
			p := parse(t, a)
			if a.status != http.StatusOK || p.ID != "call-1" || p.Result == nil || !p.Result.IsError ||
				!strings.Contains(p.Result.Content[0].Text, "octohub") || !strings.Contains(p.Result.Content[0].Text, "repos") {
				t.Errorf("a call: %d %s", a.status, a.body)
			}
			if a.header.Get("WWW-Authenticate") != "" {
				t.Error("the backend's challenge reached the client")
			}
			a = g.do("alice", http.MethodPost, "/mcp/repos", listTools, nil)
			if p := parse(t, a); a.status != http.StatusOK || p.Error == nil || p.Error.Data["provider"] != "octohub" {
				t.Errorf("a list: %d %s", a.status, a.body)
			}
			if a := g.do("alice", http.MethodGet, "/mcp/repos", "", nil); a.status != http.StatusBadGateway {
				t.Errorf("a stream: %d, want 502", a.status)
			}
		})
	}
}

func TestMissingConnectionIsToldInTheProtocolsTerms(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.NotFoundHandler()})
	for _, reason := range []string{"CONNECTION_REQUIRED", "REAUTHENTICATION_REQUIRED"} {
		g.broker.Set("repos", gatewaytest.Backend{Error: fault.New(fault.Precondition, "x").WithReason(reason, "provider", "octohub")})
		p := parse(t, g.do("alice", http.MethodPost, "/mcp/repos", whoami, nil))
		if p.Result == nil || !p.Result.IsError || p.Result.ResultType != "" || !strings.Contains(p.Result.Content[0].Text, "octohub") {
			t.Errorf("%s, a call: %+v", reason, p)
		}
		p = parse(t, g.do("alice", http.MethodPost, "/mcp/repos", stateless("tools/call", `"name":"whoami",`), statelessHeader("tools/call", "whoami")))
		if p.Result == nil || !p.Result.IsError || p.Result.ResultType != "complete" {
			t.Errorf("%s, a stateless call: %+v", reason, p)
		}
		a := g.do("alice", http.MethodPost, "/mcp/repos", initialize, nil)
		if p := parse(t, a); a.status != http.StatusOK || p.Error == nil || p.Error.Data["reason"] != reason || p.Error.Data["backend"] != "repos" {
			t.Errorf("%s, initialize: %d %s", reason, a.status, a.body)
		}
	}
}

// hang answers when the caller has gone away. The body must have been read for
// the server to notice.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestBackendInTroubleIsNamedAndOthersWork(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{timeout: 100 * time.Millisecond}, map[string]http.Handler{
		"slow": http.HandlerFunc(hang),
		"dead": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		"fine": mcpServer(&mcp.StreamableHTTPOptions{Stateless: true}, nil),
	})
	for name, want := range map[string]int{"slow": http.StatusGatewayTimeout, "dead": http.StatusBadGateway, "fine": http.StatusOK} {
		a := g.do("alice", http.MethodPost, "/mcp/"+name, whoami, nil)
		if a.status != want {
			t.Errorf("%s: %d, want %d: %s", name, a.status, want, a.body)
		}
		if want == http.StatusOK {
			continue
		}
		if p := parse(t, a); p.ID != "call-1" || p.Error == nil || p.Error.Data["backend"] != name || !strings.Contains(p.Error.Message, name) {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

func TestBrokerInTroubleIsUnavailableNotUnauthorized(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.NotFoundHandler()})
	for reason, want := range map[string]int{
		"CONFIG_UNKNOWN": 503, "UPSTREAM_UNAVAILABLE": 503, "": 503, "SESSION_ENDED": 401, "TOKEN_INVALID": 401,
	} {
		kind := fault.Unavailable
		if want == 401 {
			kind = fault.Unauthenticated
		}
		g.broker.Set("repos", gatewaytest.Backend{Error: fault.New(kind, "x").WithReason(reason, "provider", "octohub")})
		a := g.do("alice", http.MethodPost, "/mcp/repos", whoami, nil)
		if a.status != want || (a.header.Get("WWW-Authenticate") != "") != (want == 401) {
			t.Errorf("%s: %d %v, want %d", reason, a.status, a.header["Www-Authenticate"], want)
		}
	}
}

func TestProbeForTheStatelessEraNeverEarnsAnError(t *testing.T) {
	t.Parallel()
	discover := stateless("server/discover", "")
	header := statelessHeader("server/discover", "")
	var handler atomic.Pointer[http.HandlerFunc]
	g := newGateway(t, options{timeout: 100 * time.Millisecond}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*handler.Load())(w, r)
	})})
	for name, h := range map[string]http.HandlerFunc{
		"500":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"503":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"401":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"403":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"302":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/"); w.WriteHeader(302) },
		"crash": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hang":  hang,
	} {
		handler.Store(&h)
		a := g.do("alice", http.MethodPost, "/mcp/repos", discover, header)
		if a.status == 401 || a.status >= 500 || parse(t, a).Error == nil {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	// And a session-era server in front of a client that probes.
	old := http.HandlerFunc(mcpServer(&mcp.StreamableHTTPOptions{}, nil).ServeHTTP)
	handler.Store(&old)
	if a := g.do("alice", http.MethodPost, "/mcp/repos", discover, header); a.status == 401 || a.status >= 500 {
		t.Errorf("a session-era server: %d %s", a.status, a.body)
	}
}

func TestMalformedMessagesDoNotReachTheBackend(t *testing.T) {
	t.Parallel()
	backend := &counted{next: mcpServer(&mcp.StreamableHTTPOptions{Stateless: true}, nil)}
	g := newGateway(t, options{maxBody: 4096}, map[string]http.Handler{"repos": backend})
	big := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + strings.Repeat("x", 5000) + `"}}`
	tests := map[string]struct {
		body   string
		header map[string]string
		status int
		code   int
	}{
		"no JSON":            {`{"jsonrpc"`, nil, 400, -32700},
		"no JSON-RPC":        {`{"id":1}`, nil, 400, -32600},
		"twice the method":   {`{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}`, nil, 400, -32600},
		"empty":              {``, nil, 400, -32700},
		"empty batch":        {`[]`, nil, 400, -32600},
		"too large":          {big, nil, 413, -32600},
		"not JSON by header": {listTools, map[string]string{"Content-Type": "text/plain"}, 415, -32600},
		"batch, stateless":   {`[` + listTools + `]`, map[string]string{"Mcp-Protocol-Version": "2026-07-28"}, 400, -32600},
	}
	for name, tt := range tests {
		a := g.do("alice", http.MethodPost, "/mcp/repos", tt.body, tt.header)
		if p := parse(t, a); a.status != tt.status || p.Error == nil || p.Error.Code != tt.code {
			t.Errorf("%s: %d %s, want %d and %d", name, a.status, a.body, tt.status, tt.code)
		}
	}
	// The same without a length in advance.
	resp := g.open(t.Context(), "alice", http.MethodPost, "/mcp/repos", io.MultiReader(strings.NewReader(big)), nil)
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked and too large: %d", resp.StatusCode)
	}
	if a := g.do("alice", http.MethodPut, "/mcp/repos", "", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d, want 405", a.status)
	}
	if n := len(backend.headers()); n != 0 {
		t.Errorf("%d of them reached the backend", n)
	}
}

func TestTokensAndBodiesStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": mcpServer(&mcp.StreamableHTTPOptions{Stateless: true}, nil)})
	g.do("alice", http.MethodPost, "/mcp/repos", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a private word"}}}`, nil)
	eventually(t, "the line is written", func() bool { return strings.Contains(g.log.String(), "mcp request") })
	log := g.log.String()
	for _, want := range []string{`"backend":"repos"`, `"method":"tools/call"`, `"tool":"echo"`, `"outcome":"ok"`, `"request_id":`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: %s", want, log)
		}
	}
	for _, secret := range []string{"private", "Bearer", "eyJ", gatewaytest.Token("alice", "repos", 1), "alice"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q: %s", secret, log)
		}
	}
}

func TestAnswerLargerThanMemoryIsStreamed(t *testing.T) {
	t.Parallel()
	const size = 256 << 20
	chunk := make([]byte, 1<<16)
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for sent := 0; sent < size; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})})
	resp := g.open(t.Context(), "alice", http.MethodPost, "/mcp/repos", strings.NewReader(whoami), nil)
	defer resp.Body.Close()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	buf := make([]byte, 1<<16)
	total, peak := 0, uint64(0)
	for {
		n, err := resp.Body.Read(buf)
		if total += n; total%(16<<20) < n {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total != size {
		t.Errorf("%d bytes, want %d", total, size)
	}
	if peak > before.HeapAlloc+size/4 {
		t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, peak)
	}
}

func TestAnswerThatBreaksIsNotTakenForWhole(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":`)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/mcp/repos", strings.NewReader(whoami))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+g.token("alice"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return // the connection broke before anything was sent: as good
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer ended well: %d %q", resp.StatusCode, body)
	}
}

func TestWrappedNamesAreUnderstood(t *testing.T) {
	t.Parallel()
	backend := &counted{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })}
	g := newGateway(t, options{}, map[string]http.Handler{"repos": backend})
	const wrapped = "=?base64?d2V0dGVyL8OEw7Y=?=" // "wetter/Äö", which no header can carry as it is
	call := stateless("tools/call", `"name":"wetter/\u00c4ö",`)
	if a := g.do("alice", http.MethodPost, "/mcp/repos", call, statelessHeader("tools/call", wrapped)); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := backend.headers()[0].Get("Mcp-Name"); got != wrapped {
		t.Errorf("the backend got %q", got)
	}
}

func TestBackendsOwnHeadersStayBehind(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Set-Cookie", "Www-Authenticate", "Access-Control-Allow-Origin", "Server", "Location"} {
			w.Header().Set(name, "backend")
		}
		w.Header().Set("Mcp-Session-Id", strings.Repeat("x", 100))
		w.Header().Set("Mcp-Custom", "kept")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	})})
	a := g.do("alice", http.MethodPost, "/mcp/repos", initialize, nil)
	for name, values := range a.header {
		if values[0] == "backend" || strings.Contains(values[0], "xxx") {
			t.Errorf("%s: %s reached the client", name, values[0])
		}
	}
	if a.header.Get("Mcp-Custom") != "kept" || a.header.Get("Mcp-Session-Id") == "" {
		t.Errorf("header %v", a.header)
	}
}

// stateless is a request of MCP 2026-07-28.
func stateless(method, members string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + members +
		`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
}

func statelessHeader(method, name string) map[string]string {
	h := map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method}
	if name != "" {
		h["Mcp-Name"] = name
	}
	return h
}

func TestStatelessHeadersMustSayWhatTheBodySays(t *testing.T) {
	t.Parallel()
	backend := &counted{next: mcpServer(&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}, nil)}
	g := newGateway(t, options{}, map[string]http.Handler{"repos": backend})
	call := stateless("tools/call", `"name":"whoami","arguments":{},`)
	tests := map[string]struct {
		body   string
		header map[string]string
		code   int // 0: passes
	}{
		"right":               {call, statelessHeader("tools/call", "whoami"), 0},
		"other method":        {call, statelessHeader("tools/list", "whoami"), -32020},
		"no method":           {call, map[string]string{"Mcp-Protocol-Version": "2026-07-28", "Mcp-Name": "whoami"}, -32020},
		"other name":          {call, statelessHeader("tools/call", "harmless"), -32020},
		"no name":             {call, statelessHeader("tools/call", ""), -32020},
		"other version":       {strings.ReplaceAll(call, "2026-07-28", "2027-01-01"), statelessHeader("tools/call", "whoami"), -32020},
		"no _meta":            {whoami, statelessHeader("tools/call", "whoami"), -32602},
		"no capabilities":     {strings.ReplaceAll(call, `,"io.modelcontextprotocol/clientCapabilities":{}`, ""), statelessHeader("tools/call", "whoami"), -32602},
		"no name in the body": {stateless("tools/call", ""), statelessHeader("tools/call", "whoami"), -32602},
		"session id is ignored": {call, map[string]string{
			"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "whoami", "Mcp-Session-Id": "x",
		}, 0},
	}
	for name, tt := range tests {
		a := g.do("alice", http.MethodPost, "/mcp/repos", tt.body, tt.header)
		p := parse(t, a)
		switch {
		case tt.code == 0 && (a.status != http.StatusOK || p.Result == nil || p.Result.IsError):
			t.Errorf("%s: %d %s, want a result", name, a.status, a.body)
		case tt.code != 0 && (a.status != http.StatusBadRequest || p.Error == nil || p.Error.Code != tt.code || p.ID == nil):
			t.Errorf("%s: %d %s, want 400 and %d", name, a.status, a.body, tt.code)
		}
	}
	for _, h := range backend.headers() {
		if h.Get("Mcp-Method") != "tools/call" || h.Get("Mcp-Session-Id") != "" {
			t.Errorf("the backend got %v", h)
		}
	}
}

func TestNoHeaderMeansTwoThings(t *testing.T) {
	t.Parallel()
	backend := &counted{next: mcpServer(&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}, nil)}
	g := newGateway(t, options{}, map[string]http.Handler{"repos": backend})
	for _, header := range gatewaytest.AmbiguousHeaders() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+"/mcp/repos", strings.NewReader(whoami))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+g.token("alice"))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%v: %d, want 400", header, resp.StatusCode)
		}
	}
	if n := len(backend.headers()); n != 0 {
		t.Errorf("%d of them reached the backend", n)
	}
	// Outside of the stateless era nobody compares these with the body.
	a := g.do("alice", http.MethodPost, "/mcp/repos", whoami, map[string]string{
		"Mcp-Protocol-Version": "2025-11-25", "Mcp-Method": "tools/list", "Mcp-Name": "harmless", "Mcp-Param-X": "1",
	})
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, name := range []string{"Mcp-Method", "Mcp-Name", "Mcp-Param-X"} {
		if got := backend.headers()[0].Get(name); got != "" {
			t.Errorf("the backend of the session era got %s: %s", name, got)
		}
	}
}
