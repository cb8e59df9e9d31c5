package jsonrpc

import (
	"net/http"
	"strconv"
)

// Write answers an HTTP request with a message.
func Write(w http.ResponseWriter, status int, message []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(message) // the client went away: nobody to tell
}

// WriteResult answers an HTTP request with a result, which is JSON and is not
// copied; see AppendResult.
func WriteResult(w http.ResponseWriter, id, result []byte) {
	head := append(appendHead(make([]byte, 0, 64), id), `,"result":`...)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(head)+len(result)+1))
	w.WriteHeader(http.StatusOK)
	for _, part := range [...][]byte{head, result, {'}'}} {
		if _, err := w.Write(part); err != nil {
			return // the client went away: nobody to tell
		}
	}
}

// WriteError answers an HTTP request with an error response; see AppendError.
func WriteError(w http.ResponseWriter, status int, id []byte, code int, text string) {
	Write(w, status, AppendError(nil, id, code, text, nil))
}
