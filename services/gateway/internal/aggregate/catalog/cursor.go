package catalog

import (
	"encoding/json"
	"errors"
	"slices"
)

// Cursor says where each backend's list goes on.
type Cursor struct {
	// Method of the list. A cursor of one list is no cursor of another.
	Method string `json:"m"`
	// Next is sorted by backend and never empty.
	Next []Position `json:"n"`
}

// Position is a backend's own cursor.
type Position struct {
	Backend string `json:"b"`
	Cursor  string `json:"c"`
}

var errCursor = errors.New("not a cursor of this list")

// Marshal returns the cursor as bytes, to be sealed.
func (c *Cursor) Marshal() ([]byte, error) { return json.Marshal(c) }

// UnmarshalCursor is the inverse of Marshal, for a cursor of the list of method.
func UnmarshalCursor(raw []byte, method string) (*Cursor, error) {
	var c Cursor
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, errCursor
	}
	sorted := slices.IsSortedFunc(c.Next, func(a, b Position) int {
		if a.Backend < b.Backend {
			return -1
		}
		return 1 // equal names are out of order, too
	})
	if c.Method != method || len(c.Next) == 0 || !sorted {
		return nil, errCursor
	}
	return &c, nil
}

// Of returns the position of a backend.
func (c *Cursor) Of(backend string) (cursor string, ok bool) {
	for i := range c.Next {
		if c.Next[i].Backend == backend {
			return c.Next[i].Cursor, true
		}
	}
	return "", false
}
