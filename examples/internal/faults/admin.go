package faults

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
)

// maxAdminBody bounds what the admin endpoint reads, in bytes.
const maxAdminBody = 64 << 10

// Switchboard is what Admin steers: a Provider or a Backend.
type Switchboard interface {
	faults() any
	setFaults(*json.Decoder) error
	requests() map[string]Count
	resetRequests()
}

// Admin returns the admin endpoint, to which the caller may add routes.
// Serve it through Guard.
func Admin(s Switchboard) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { Answer(w, s.faults()) })
	mux.HandleFunc("PUT /faults", func(w http.ResponseWriter, r *http.Request) {
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
		dec.DisallowUnknownFields()
		if err := s.setFaults(dec); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		Answer(w, s.faults())
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.setFaults(json.NewDecoder(strings.NewReader("{}"))); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		Answer(w, s.faults())
	})
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) { Answer(w, s.requests()) })
	mux.HandleFunc("DELETE /requests", func(w http.ResponseWriter, _ *http.Request) {
		s.resetRequests()
		Answer(w, s.requests())
	})
	return mux
}

// Guard lets only programs on this machine in: the Host must be a loopback name
// (DNS rebinding) and the request must not come from a web page of another origin.
func Guard(next http.Handler) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) {
			http.Error(w, "the admin endpoint is for this machine only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// CheckAddr refuses a listen address that is reachable from other machines.
func CheckAddr(addr string) error {
	if host, _, err := net.SplitHostPort(addr); err != nil || host == "" || !loopbackHost(addr) {
		return fmt.Errorf("the admin endpoint listens on loopback only, not on %q", addr)
	}
	return nil
}

func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// ReadJSON reads a bounded JSON body into v; unknown fields are errors.
func ReadJSON(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// Answer writes v as JSON.
func Answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nothing to do
}

func (p *Provider) faults() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.settings
	if s.Token != nil {
		s.Token = new(*s.Token)
	}
	return s
}

func (p *Provider) setFaults(dec *json.Decoder) error {
	var s ProviderSettings
	if err := dec.Decode(&s); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settings = s
	return nil
}

func (p *Provider) requests() map[string]Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

func (p *Provider) resetRequests() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.counts)
}

func (b *Backend) faults() any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settings
}

func (b *Backend) setFaults(dec *json.Decoder) error {
	var s BackendSettings
	if err := dec.Decode(&s); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settings = s
	return nil
}

func (b *Backend) requests() map[string]Count {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.counts)
}

func (b *Backend) resetRequests() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.counts)
}
