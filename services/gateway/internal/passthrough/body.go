package passthrough

import (
	"errors"
	"io"
	"net/http"
)

var errTooLarge = errors.New("the body is too large")

// firstSize is how much is read before anything is known of the size.
const firstSize = 8 << 10

// readBody reads the whole body. Its memory is not reused: net/http may go on
// sending it to the backend after the answer is there, and the next request
// may be another person's.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	size := int64(firstSize)
	if r.ContentLength >= 0 {
		size = r.ContentLength + 1 // one more, to see the end without growing
	}
	b := make([]byte, 0, size)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}
