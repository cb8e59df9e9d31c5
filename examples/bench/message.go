package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
)

// maxAnswer bounds an answer's body, in bytes.
const maxAnswer = 1 << 20

// firstID is the first request's id. Ids have one length as long as there are
// fewer than nine million of them, so that all requests have one, too.
const firstID = 1_000_000

// meta is what each request of the stateless era says about its client (MCP
// 2026-07-28, _meta).
const meta = `,"_meta":{"io.modelcontextprotocol/protocolVersion":"` + stateless +
	`","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`

// appendText appends the text of call id: its number and the padding, which has
// nothing that JSON would escape.
func appendText(b []byte, id int64, padding string) []byte {
	b = append(b, "call "...)
	b = strconv.AppendInt(b, id, 10)
	return append(b, padding...)
}

// appendCall appends a tools/call request.
func appendCall(b []byte, t *target, id int64) []byte {
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	b = strconv.AppendInt(b, id, 10)
	b = append(b, `,"method":"tools/call","params":{"name":"`...)
	b = append(b, t.tool...)
	b = append(b, `","arguments":{"text":"`...)
	b = appendText(b, id, t.padding)
	b = append(b, `"}`...)
	if t.version >= stateless {
		b = append(b, meta...)
	}
	return append(b, `}}`...)
}

// head is the part of every request's header that never changes.
func head(t *target) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: %s\r\n",
		t.path, t.host, t.token, t.version)
}

// response is what an answer to tools/call must have.
type response struct {
	JSONRPC string `json:"jsonrpc"`
	ID      *int64 `json:"id"`
	Error   any    `json:"error"`
	Result  *struct {
		IsError bool `json:"isError"`
		Content []struct {
			Type string `json:"type"`
			Text string `json:"text"`
		} `json:"content"`
	} `json:"result"`
}

var errWrongAnswer = errors.New("wrong answer")

// checkCall checks that an answer's body is the one to call id, whose text is want.
func checkCall(header http.Header, body []byte, id int64, want []byte) error {
	message, err := responseMessage(header, body)
	if err != nil {
		return err
	}
	var r response
	if err := json.Unmarshal(message, &r); err != nil {
		return fmt.Errorf("%w: %w: %.300s", errWrongAnswer, err, body)
	}
	right := r.JSONRPC == "2.0" && r.ID != nil && *r.ID == id && r.Error == nil && r.Result != nil && !r.Result.IsError &&
		len(r.Result.Content) == 1 && r.Result.Content[0].Type == "text" && r.Result.Content[0].Text == string(want)
	if !right {
		return fmt.Errorf("%w to call %d: %.300s", errWrongAnswer, id, body)
	}
	return nil
}

// responseMessage returns the JSON-RPC message of an answer: its body, or the
// data of the last event of its stream that has any.
func responseMessage(header http.Header, body []byte) ([]byte, error) {
	media, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	switch media {
	case "application/json":
		return body, nil
	case "text/event-stream":
	default:
		return nil, fmt.Errorf("%w: content type %q", errWrongAnswer, media)
	}
	var last []byte
	for line := range bytes.Lines(body) {
		// The servers here write one line of data to an event.
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok && len(bytes.TrimSpace(data)) > 0 {
			last = bytes.TrimSpace(data)
		}
	}
	if last == nil {
		return nil, fmt.Errorf("%w: the event stream has no message: %.300s", errWrongAnswer, body)
	}
	return last, nil
}
