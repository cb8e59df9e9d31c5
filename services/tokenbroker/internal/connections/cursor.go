package connections

import (
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/store"
)

// Page tokens are the position of a page's last row, base64url without padding:
// "u1 MICROSECONDS ID" for users, "s1 MICROSECONDS ID" for sessions, "c1 MICROSECONDS ID
// PROVIDER" for connections, with the provider's name escaped, "a1 ID" for audit records.
const (
	userCursor       = "u1"
	sessionCursor    = "s1"
	connectionCursor = "c1"
	recordCursor     = "a1"
)

func formatCursor(kind string, c store.Cursor, more ...string) string {
	return encode(kind, append([]string{strconv.FormatInt(c.CreatedAt.UnixMicro(), 10), c.ID}, more...)...)
}

func parseCursor(kind, token string) (store.Cursor, error) {
	if token == "" {
		return store.Cursor{}, nil
	}
	parts, ok := decode(token, kind, 2)
	if !ok {
		return store.Cursor{}, badPageToken()
	}
	return cursorOf(parts)
}

func cursorOf(parts []string) (store.Cursor, error) {
	micros, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil || parts[1] == "" {
		return store.Cursor{}, badPageToken()
	}
	return store.Cursor{CreatedAt: time.UnixMicro(micros), ID: parts[1]}, nil
}

func formatConnectionCursor(c store.ConnectionCursor) string {
	return formatCursor(connectionCursor, c.Cursor, url.QueryEscape(c.Provider))
}

func parseConnectionCursor(token string) (store.ConnectionCursor, error) {
	if token == "" {
		return store.ConnectionCursor{}, nil
	}
	parts, ok := decode(token, connectionCursor, 3)
	if !ok {
		return store.ConnectionCursor{}, badPageToken()
	}
	c, err := cursorOf(parts)
	if err != nil {
		return store.ConnectionCursor{}, err
	}
	provider, err := url.QueryUnescape(parts[2])
	if err != nil {
		return store.ConnectionCursor{}, badPageToken()
	}
	return store.ConnectionCursor{Provider: provider, Cursor: c}, nil
}

func formatRecordCursor(id int64) string { return encode(recordCursor, strconv.FormatInt(id, 10)) }

func parseRecordCursor(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	parts, ok := decode(token, recordCursor, 1)
	if !ok {
		return 0, badPageToken()
	}
	id, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil || id < 1 {
		return 0, badPageToken()
	}
	return id, nil
}

func encode(kind string, parts ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + " " + strings.Join(parts, " ")))
}

func decode(token, kind string, parts int) ([]string, bool) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return nil, false
	}
	rest, ok := strings.CutPrefix(string(text), kind+" ")
	found := strings.Split(rest, " ")
	return found, ok && len(found) == parts
}

func badPageToken() error {
	return invalidRequest("page_token", "is not a next_page_token of this list")
}
