package page

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
)

// minCookieLength keeps out values that are not ours: rand.Text twice has 52.
const minCookieLength = 52

// Cookies names and shapes the one cookie of a provider.
type Cookies struct {
	name   string
	secure bool
}

// NewCookies returns the cookie settings of the provider at baseURL. The name
// holds the port, because cookies do not tell ports apart; on https it has the
// __Host- prefix, which no other host can set.
func NewCookies(provider, baseURL string) (Cookies, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return Cookies{}, err
	}
	c := Cookies{name: provider, secure: u.Scheme == "https"}
	if p := u.Port(); p != "" {
		c.name += "_" + p
	}
	if c.secure {
		c.name = "__Host-" + c.name
	}
	return c, nil
}

// Browser stands for the browser that sends a request. The zero value is a
// browser that is not known and gets no valid token.
type Browser struct{ key string }

// Known returns the browser of the request; without our cookie it is the zero value.
func (c Cookies) Known(r *http.Request) Browser {
	cookie, err := r.Cookie(c.name)
	if err != nil || len(cookie.Value) < minCookieLength {
		return Browser{}
	}
	return Browser{cookie.Value}
}

// Ensure is Known, but gives a new browser its cookie.
func (c Cookies) Ensure(w http.ResponseWriter, r *http.Request) Browser {
	if b := c.Known(r); b.key != "" {
		return b
	}
	return c.Renew(w)
}

// Renew gives the browser a new cookie, as after signing in: whoever knew the
// old one (session fixation) has nothing.
func (c Cookies) Renew(w http.ResponseWriter) Browser {
	b := Browser{rand.Text() + rand.Text()}
	http.SetCookie(w, &http.Cookie{
		Name: c.name, Value: b.key, Path: "/", HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteLaxMode,
	})
	return b
}

// ID is the digest under which the browser can be remembered; "" for the zero value.
func (b Browser) ID() string {
	if b.key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(b.key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Token returns what a form for the purpose carries. The purpose's parts say
// what may be done with it, e.g. "login" and the request's id.
func (b Browser) Token(purpose ...string) string {
	mac := hmac.New(sha256.New, []byte(b.key))
	mac.Write([]byte(strings.Join(purpose, "\x00")))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Verify reports, in constant time, whether the token is this browser's for the purpose.
func (b Browser) Verify(token string, purpose ...string) bool {
	return b.key != "" && hmac.Equal([]byte(token), []byte(b.Token(purpose...)))
}
