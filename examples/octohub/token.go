package octohub

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/examples/internal/grants"
)

var errBusy = errors.New("octohub: too many logins at once")

// never is the expiry of tokens that do not expire.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// githubError is an error that the token endpoint reports, in GitHub's words.
type githubError string

const (
	errCredentials githubError = "incorrect_client_credentials"
	errRedirect    githubError = "redirect_uri_mismatch"
	errCode        githubError = "bad_verification_code"
	errRefresh     githubError = "bad_refresh_token"
	errGrantType   githubError = "unsupported_grant_type"
)

// Error implements error.
func (e githubError) Error() string { return string(e) }

func (e githubError) description() string {
	switch e {
	case errCredentials:
		return "The client_id and/or client_secret passed are incorrect."
	case errRedirect:
		return "The redirect_uri is not the one of the authorization request."
	case errCode:
		return "The code passed is incorrect or expired."
	case errRefresh:
		return "The refresh token passed is incorrect or expired."
	}
	return "The grant_type is not supported."
}

// issued is a token answer.
type issued struct {
	access, refresh string
	expires         time.Time
	refreshExpires  time.Time
	scopes          []string
}

// tokenEndpoint prepares the form, and puts the faults in front of token.
func (h *Host) tokenEndpoint(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.URL.RawQuery != "" {
		// GitHub takes the query as well, and so gets secrets into logs.
		http.Error(w, "send the parameters as a form, in the body alone", http.StatusBadRequest)
		return
	}
	if r.PostForm.Get("grant_type") == "" {
		r.PostForm.Set("grant_type", "authorization_code") // GitHub does not ask for it
	}
	h.faults.Token(http.HandlerFunc(h.token)).ServeHTTP(w, r)
}

func (h *Host) token(w http.ResponseWriter, r *http.Request) {
	id, clientSecret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		id, clientSecret = user, pass
	}
	client, ok := h.client(id, clientSecret)
	if !ok {
		writeError(w, r, errCredentials)
		return
	}
	var out issued
	var err error
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		out, err = h.redeem(client, r.PostForm)
	case "refresh_token":
		out, err = h.rotate(client, r.PostForm.Get("refresh_token"))
	default:
		err = errGrantType
	}
	if ge, ok := errors.AsType[githubError](err); ok {
		writeError(w, r, ge)
		return
	}
	if err != nil {
		h.failed(w, r, err)
		return
	}
	h.writeTokens(w, r, out)
}

// redeem turns a code into a grant, once; a code that comes again ends the grant
// that it was redeemed for (RFC 6749 section 4.1.2).
func (h *Host) redeem(c Client, form url.Values) (out issued, err error) {
	var refused error
	err = h.state.Update(func(st *state) error {
		now, key := time.Now(), grants.Key(form.Get("code"))
		got, ok := st.Codes[key]
		switch {
		case !ok || got.Client != c.ID || !now.Before(got.Expires):
			refused = errCode
		case got.Grant != "":
			st.Ledger.Revoke(got.Grant)
			refused = errCode
		case form.Get("redirect_uri") != "" && form.Get("redirect_uri") != got.RedirectURI:
			refused = errRedirect
		case !verifyPKCE(got.Challenge, form.Get("code_verifier")):
			refused = errCode
		default:
			got.Grant = st.Ledger.Open(grants.Grant{User: userKey(got.User), Client: c.ID, Scopes: got.Scopes, AuthTime: now})
			st.Codes[key] = got
			out = h.issue(st, got.Grant, got.Scopes, now)
		}
		return nil
	})
	return out, errors.Join(refused, err)
}

// verifyPKCE checks RFC 7636 section 4.6. Without a challenge there must be no
// verifier (RFC 9700 section 2.1.1, downgrade).
func verifyPKCE(challenge, verifier string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	got := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(got), []byte(challenge)) == 1
}

func (h *Host) rotate(c Client, token string) (out issued, err error) {
	var refused error
	err = h.state.Update(func(st *state) error {
		now, key := time.Now(), grants.Key(token)
		_, g, lookupErr := st.Ledger.LookupRefresh(key, now)
		if lookupErr != nil || g.Client != c.ID {
			refused = errRefresh
			return nil
		}
		grant, spendErr := st.Ledger.Spend(key, now, h.lifetimes.RefreshGrace)
		if spendErr != nil { // a reuse has ended the family: that is to be written
			refused = errRefresh
			return nil
		}
		out = h.issue(st, grant, g.Scopes, now)
		return nil
	})
	return out, errors.Join(refused, err)
}

// issue works on the state under its lock.
func (h *Host) issue(st *state, grant string, scopes []string, now time.Time) issued {
	out := issued{access: grants.NewToken("ohu_"), expires: never, scopes: scopes}
	if h.lifetimes.AccessToken > 0 {
		out.expires = now.Add(h.lifetimes.AccessToken)
		out.refresh, out.refreshExpires = grants.NewToken("ohr_"), now.Add(h.lifetimes.RefreshToken)
		st.Ledger.PutRefresh(grants.Key(out.refresh), grant, out.refreshExpires)
	}
	st.Ledger.PutAccess(grants.Key(out.access), grant, scopes, out.expires)
	st.Ledger.Prune(now)
	return out
}

// writeTokens answers in the form that GitHub does: numbers are numbers in JSON.
func (h *Host) writeTokens(w http.ResponseWriter, r *http.Request, out issued) {
	fields := map[string]any{"access_token": out.access, "token_type": "bearer", "scope": strings.Join(out.scopes, ",")}
	if out.refresh != "" {
		fields["expires_in"] = int(h.lifetimes.AccessToken.Seconds())
		fields["refresh_token"] = out.refresh
		fields["refresh_token_expires_in"] = int(h.lifetimes.RefreshToken.Seconds())
	}
	write(w, r, fields)
}

func writeError(w http.ResponseWriter, r *http.Request, e githubError) {
	write(w, r, map[string]any{"error": string(e), "error_description": e.description()})
}

func write(w http.ResponseWriter, r *http.Request, fields map[string]any) {
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		answer(w, http.StatusOK, fields)
		return
	}
	form := url.Values{}
	for k, v := range fields {
		switch v := v.(type) {
		case int:
			form.Set(k, strconv.Itoa(v))
		case string:
			form.Set(k, v)
		}
	}
	w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(form.Encode())) // an error means that the client is gone
}

// revoke serves RFC 7009: an access token ends alone, a refresh token takes its
// family along.
func (h *Host) revoke(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("token") == "" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	c, ok := h.basicClient(r)
	if !ok {
		c, ok = h.client(r.PostForm.Get("client_id"), r.PostForm.Get("client_secret"))
	}
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="octohub"`)
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	key := grants.Key(r.PostForm.Get("token"))
	err := h.state.Update(func(st *state) error {
		now := time.Now()
		if _, g, err := st.Ledger.LookupAccess(key, now); err == nil && g.Client == c.ID {
			delete(st.Ledger.Access, key)
		}
		if t, g, err := st.Ledger.LookupRefresh(key, now); err == nil && g.Client == c.ID {
			st.Ledger.Revoke(t.Grant)
		}
		return nil
	})
	if err != nil {
		h.failed(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// deleteToken ends one user token, as GitHub's "delete an app token".
func (h *Host) deleteToken(w http.ResponseWriter, r *http.Request) {
	h.deleteBy(w, r, func(st *state, key string, _ grants.Access) { delete(st.Ledger.Access, key) })
}

// deleteGrant ends everything that the person granted to the client, as GitHub's
// "delete an app authorization".
func (h *Host) deleteGrant(w http.ResponseWriter, r *http.Request) {
	h.deleteBy(w, r, func(st *state, _ string, a grants.Access) {
		owner := st.Ledger.Grants[a.Grant]
		st.Ledger.RevokeWhere(func(g grants.Grant) bool { return g.User == owner.User && g.Client == owner.Client })
	})
}

func (h *Host) deleteBy(w http.ResponseWriter, r *http.Request, end func(*state, string, grants.Access)) {
	c, ok := h.basicClient(r)
	if !ok || c.ID != r.PathValue("client") {
		w.Header().Set("WWW-Authenticate", `Basic realm="octohub"`)
		answer(w, http.StatusUnauthorized, map[string]string{"message": "Bad credentials"})
		return
	}
	var in struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.AccessToken == "" {
		answer(w, http.StatusUnprocessableEntity, map[string]string{"message": "access_token is required"})
		return
	}
	found := false
	err := h.state.Update(func(st *state) error {
		key := grants.Key(in.AccessToken)
		a, g, err := st.Ledger.LookupAccess(key, time.Now())
		if found = err == nil && g.Client == c.ID; found {
			end(st, key, a)
		}
		return nil
	})
	switch {
	case err != nil:
		h.failed(w, r, err)
	case !found:
		answer(w, http.StatusNotFound, map[string]string{"message": "Not Found"})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
