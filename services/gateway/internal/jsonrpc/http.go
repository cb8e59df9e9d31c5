package jsonrpc

import "net/http"

// Write answers an HTTP request with a message.
func Write(w http.ResponseWriter, status int, message []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(message) // the client went away: nobody to tell
}

// WriteError answers an HTTP request with an error response; see AppendError.
func WriteError(w http.ResponseWriter, status int, id []byte, code int, text string) {
	Write(w, status, AppendError(nil, id, code, text, nil))
}
