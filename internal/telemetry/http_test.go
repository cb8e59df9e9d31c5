package telemetry

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// observed is a Telemetry with real metrics, whose logs and spans can be read.
func observed(t *testing.T) (tel *Telemetry, logs *buffer, spans *tracetest.SpanRecorder) {
	t.Helper()
	logs, spans = &buffer{}, tracetest.NewSpanRecorder()
	tel, err := build(t.Context(), Config{Service: "test", LogOutput: logs})
	if err != nil {
		t.Fatal(err)
	}
	tel.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	return tel, logs, spans
}

func metricsOf(t *testing.T, tel *Telemetry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if rec.Code != http.StatusOK {
		t.Fatalf("metrics answer %d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func call(t *testing.T, method, url string, header http.Header) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestMetricsSpansAndLogsNameTheRouteAndNeverThePath(t *testing.T) {
	t.Parallel()
	tel, logs, spans := observed(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mcp/{backend}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("/free/", func(w http.ResponseWriter, r *http.Request) { SetRoute(r.Context(), "named"); fmt.Fprint(w, "hello") })
	server := httptest.NewServer(tel.Middleware(HTTPConfig{Server: "public"})(mux))
	defer server.Close()

	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/mcp/secret-backend?code=secret"},
		{http.MethodGet, "/free/secret-name"},
		{http.MethodGet, "/secret-unknown"},
		{"BREW", "/mcp/secret-x"},
	} {
		if _, _, err := call(t, c.method, server.URL+c.path, nil); err != nil {
			t.Fatal(err)
		}
	}
	metrics := metricsOf(t, tel)
	for _, want := range []string{
		`http_request_method="GET",http_response_status_code="418",http_route="/mcp/{backend}"`,
		`http_route="named"`, `http_route="unmatched"`, `http_request_method="_OTHER"`, `server="public"`, `http_server_active_requests{`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for what, text := range map[string]string{"metrics": metrics, "logs": logs.String()} {
		if strings.Contains(text, "secret") {
			t.Errorf("%s hold a path or query: %s", what, text)
		}
	}
	if !strings.Contains(logs.String(), `"route":"/mcp/{backend}","status":418`) || !strings.Contains(logs.String(), `"bytes":5`) {
		t.Errorf("access log: %s", logs)
	}
	var names []string
	for _, s := range spans.Ended() {
		names = append(names, s.Name())
		for _, a := range s.Attributes() {
			if strings.Contains(a.Value.String(), "code=secret") {
				t.Errorf("span attribute %s holds the query", a.Key)
			}
		}
	}
	if len(names) != 4 || names[0] != "GET /mcp/{backend}" || names[1] != "GET named" || names[2] != "GET" {
		t.Errorf("spans %q", names)
	}
}

func TestAPanicIsAnsweredAndLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	tel, logs, _ := observed(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/early", func(http.ResponseWriter, *http.Request) { panic("broken early") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half an ans")
		_ = http.NewResponseController(w).Flush()
		panic("broken late")
	})
	mux.HandleFunc("/abort", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half")
		panic(http.ErrAbortHandler)
	})
	server := httptest.NewUnstartedServer(tel.Middleware(HTTPConfig{})(mux))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.Start()
	defer server.Close()

	resp, body, err := call(t, http.MethodGet, server.URL+"/early", nil)
	if err != nil || resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "broken") {
		t.Errorf("%v, %q, %v", resp, body, err)
	}
	for _, path := range []string{"/late", "/abort"} {
		if _, _, err := call(t, http.MethodGet, server.URL+path, nil); err == nil {
			t.Errorf("%s: half an answer looks whole", path)
		}
	}
	for _, want := range []string{"broken early", "broken late", "http_test.go", `"status":500`} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(logs.String(), "abort Handler") {
		t.Error("an ordinary abort was logged as a panic")
	}
}

func TestStreamsReachTheClientAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	tel, _, _ := observed(t)
	next := make(chan struct{})
	handler := func(w http.ResponseWriter, _ *http.Request) {
		flusher, ok := w.(http.Flusher)
		if !ok {
			t.Error("the writer is no http.Flusher")
			return
		}
		controller := http.NewResponseController(w)
		if err := controller.EnableFullDuplex(); err != nil {
			t.Errorf("http.ResponseController does not reach the server's writer: %v", err)
		}
		fmt.Fprint(w, "data: 1\n")
		flusher.Flush()
		<-next
		fmt.Fprint(w, "data: 2\n")
		if err := controller.Flush(); err != nil {
			t.Error(err)
		}
		<-next
	}
	server := httptest.NewServer(tel.Middleware(HTTPConfig{})(http.HandlerFunc(handler)))
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"data: 1\n", "data: 2\n"} {
		if got, err := lines.ReadString('\n'); err != nil || got != want { // hangs if the middleware buffers
			t.Errorf("%q, %v", got, err)
		}
		next <- struct{}{}
	}
}

func TestRequestIDsAndTracesOfStrangersAreNotTaken(t *testing.T) {
	t.Parallel()
	const traceID = "0af7651916cd43dd8448eb211c80319c"
	for name, tt := range map[string]struct {
		public  bool
		join    bool
		id      string
		wantID  bool
		wantTID bool
	}{
		"inside":            {false, false, "req-1", true, true},
		"inside, not an id": {false, false, "a b", false, true},
		"inside, too long":  {false, false, strings.Repeat("a", 65), false, true},
		"public":            {true, false, "req-1", false, false},
		"public, joined":    {true, true, "req-1", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tel, _, spans := observed(t)
			var inHandler string
			server := httptest.NewServer(tel.Middleware(HTTPConfig{Public: tt.public, JoinTraces: tt.join})(http.HandlerFunc(
				func(_ http.ResponseWriter, r *http.Request) { inHandler = RequestID(r.Context()) })))
			defer server.Close()
			resp, _, err := call(t, http.MethodGet, server.URL, http.Header{
				RequestIDHeader: {tt.id}, "Traceparent": {"00-" + traceID + "-b7ad6b7169203331-01"},
			})
			if err != nil {
				t.Fatal(err)
			}
			got := resp.Header.Get(RequestIDHeader)
			if got == "" || got != inHandler || (got == tt.id) != tt.wantID {
				t.Errorf("request id %q, in the handler %q", got, inHandler)
			}
			span := spans.Ended()[0]
			if (span.SpanContext().TraceID().String() == traceID) != tt.wantTID {
				t.Errorf("trace id %s", span.SpanContext().TraceID())
			}
			if tt.public && !tt.join && (len(span.Links()) != 1 || span.SpanKind() != trace.SpanKindServer) {
				t.Errorf("%d links", len(span.Links()))
			}
		})
	}
}
