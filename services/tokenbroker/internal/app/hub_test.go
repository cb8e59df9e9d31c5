package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// hub is a code host of plain OAuth 2.0. A code is "code-ACCOUNT"; its tokens say
// what they are, so that a test finds them wherever they turn up.
type hub struct {
	*httptest.Server

	mu   sync.Mutex
	down bool
	// without refresh tokens in the answer to a code.
	withoutRefresh bool
	issued         int
}

const tokenMark = "hub-secret-token"

func newHub(t *testing.T) *hub {
	h := &hub{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", h.token)
	mux.HandleFunc("GET /user", func(w http.ResponseWriter, r *http.Request) {
		account := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
		if len(account) != 3 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id": %q, "login": %q}`, account[1], account[1]+"-login")
	})
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

func (h *hub) set(change func(*hub)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func (h *hub) token(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	account, ok := strings.CutPrefix(r.FormValue("code"), "code-")
	if r.FormValue("grant_type") == "refresh_token" {
		parts := strings.Split(r.FormValue("refresh_token"), ".")
		account, ok = parts[min(1, len(parts)-1)], len(parts) == 3
	}
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error": "invalid_grant", "error_description": "`+tokenMark+`"}`)
		return
	}
	h.issued++
	answer := map[string]any{
		"access_token": fmt.Sprintf("%s.%s.at%d", tokenMark, account, h.issued), "token_type": "bearer", "scope": "repo", "expires_in": 3600,
	}
	if !h.withoutRefresh {
		answer["refresh_token"] = fmt.Sprintf("%s.%s.rt%d", tokenMark, account, h.issued)
	}
	_ = json.NewEncoder(w).Encode(answer)
}
