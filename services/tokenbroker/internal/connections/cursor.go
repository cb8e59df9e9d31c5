package connections

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/store"
)

// Page tokens are the position of a page's last row, base64url without padding:
// "u1 MICROSECONDS ID" for users, "a1 ID" for audit records.
const (
	userCursor   = "u1"
	recordCursor = "a1"
)

func formatUserCursor(c store.UserCursor) string {
	return encode(userCursor, strconv.FormatInt(c.CreatedAt.UnixMicro(), 10), c.ID)
}

func parseUserCursor(token string) (store.UserCursor, error) {
	if token == "" {
		return store.UserCursor{}, nil
	}
	parts, ok := decode(token, userCursor, 2)
	if !ok || parts[1] == "" {
		return store.UserCursor{}, badPageToken()
	}
	micros, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return store.UserCursor{}, badPageToken()
	}
	return store.UserCursor{CreatedAt: time.UnixMicro(micros), ID: parts[1]}, nil
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
