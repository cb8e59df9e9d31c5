package front

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/authorize"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/store"
)

// cookie is the one that binds a login to its browser.
type cookie struct {
	name   string
	secure bool
}

const cookieBytes = 32

func newCookie(base *url.URL) cookie {
	if base.Scheme == "https" {
		return cookie{name: "__Host-chatelaine-browser", secure: true}
	}
	port := base.Port()
	if port == "" {
		port = "80"
	}
	return cookie{name: "chatelaine-browser-" + port}
}

// read returns the digest of the request's cookie.
func (c cookie) read(r *http.Request) (digest []byte, ok bool) {
	got, err := r.Cookie(c.name)
	if err != nil {
		return nil, false
	}
	if raw, err := base64.RawURLEncoding.DecodeString(got.Value); err != nil || len(raw) != cookieBytes {
		return nil, false
	}
	return store.Digest(got.Value), true
}

// ensure is read, and gives a browser without a cookie a new one.
func (c cookie) ensure(w http.ResponseWriter, r *http.Request) []byte {
	if digest, ok := c.read(r); ok {
		return digest
	}
	raw := make([]byte, cookieBytes)
	rand.Read(raw) // never fails: crypto/rand ends the process instead
	value := base64.RawURLEncoding.EncodeToString(raw)
	http.SetCookie(w, &http.Cookie{
		Name: c.name, Value: value, Path: "/", Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	return store.Digest(value)
}

func noCookie() error {
	return fault.New(fault.Denied, "the browser sent no cookie of a sign-in").WithReason(reasonNoCookie)
}

// The questions that forms ask; a token for one is no good for another.
const (
	questionConsent = "consent"
	questionConfirm = "confirm"
)

// token returns the CSRF token of a form: the version of the request that the
// question is about, sealed for this request, this browser and this question.
func (f *Front) token(question string, req *store.AuthorizationRequest) string {
	version := binary.BigEndian.AppendUint64(nil, uint64(req.Version)) //nolint:gosec // counts from zero
	sealed, err := f.cfg.Ring.Seal(nil, version, tokenContext(question, req.ID, req.BrowserHash))
	if err != nil {
		return "" // a defect: the form is refused when it comes back
	}
	return base64.RawURLEncoding.EncodeToString(sealed)
}

func (f *Front) checkToken(token, question, requestID string, browser []byte) (version int64, err error) {
	var plain []byte
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		plain, err = f.cfg.Ring.Open(sealed, tokenContext(question, requestID, browser))
	}
	if err != nil || len(plain) != 8 {
		return 0, fault.Wrap(fault.Denied, err, "the form was not made for this browser and this sign-in").WithReason(reasonForm)
	}
	return int64(binary.BigEndian.Uint64(plain)), nil //nolint:gosec // we have sealed it
}

// tokenContext is unambiguous: the digest has a fixed length and a question no zero.
func tokenContext(question, requestID string, browser []byte) []byte {
	b := append([]byte("form\x00"+question+"\x00"), browser...)
	return append(b, requestID...)
}

func clientError(err error) (*authorize.ClientError, bool) {
	return errors.AsType[*authorize.ClientError](err)
}

func returnsTo(req *store.AuthorizationRequest) (place string, loopback bool) {
	return clients.ReturnsTo(req.Params.RedirectURI)
}
