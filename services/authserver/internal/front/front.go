package front

import (
	"cmp"
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/authserver/internal/authorize"
	"chatelaine.dev/services/authserver/internal/chain"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/pages"
	"chatelaine.dev/services/authserver/internal/store"
	"chatelaine.dev/services/authserver/internal/web"
)

// maxFormBytes bounds what our own forms send.
const maxFormBytes = 16 << 10

// Config makes a Front.
type Config struct {
	// BaseURL is where browsers reach us: authorizationEndpointBaseUrl, or the issuer.
	BaseURL *url.URL
	Issuer  string
	// Callbacks lists, by path, the providers that send browsers there.
	Callbacks map[string][]string
	Checker   *authorize.Checker
	Chain     *chain.Chain
	Pages     *pages.Renderer
	// Limiter bounds how many logins an address begins, ConsentLimiter how many it
	// answers, ReturnLimiter how often it comes back to one from a provider, and for
	// the question that may be left then.
	Limiter, ConsentLimiter, ReturnLimiter *web.Limiter
	// TrustedProxies may say who calls.
	TrustedProxies []netip.Prefix
	// Ring seals the tokens of forms.
	Ring *keyring.Ring
	// Metrics may be nil.
	Metrics *metrics.Recorder
	Logger  *slog.Logger
}

// Front is the set of handlers.
type Front struct {
	cfg    Config
	base   string
	cookie cookie
}

// New returns the handlers.
func New(cfg Config) *Front {
	return &Front{cfg: cfg, base: cfg.BaseURL.EscapedPath(), cookie: newCookie(cfg.BaseURL)}
}

// Mount adds the routes.
func (f *Front) Mount(mux *http.ServeMux) {
	get := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+path, h)
		// GET would match HEAD as well, and a link preview spend what a person needs.
		mux.HandleFunc("HEAD "+path, notAllowed)
	}
	get(f.base+"/oauth/authorize", f.authorize)
	get(f.base+"/oauth/confirm", f.limited(f.showConfirm))
	mux.HandleFunc("POST "+f.base+"/oauth/consent", f.consent)
	mux.HandleFunc("POST "+f.base+"/oauth/confirm", f.limited(f.confirm))
	// Found as they are written: to the mux, some of what a path may have is a pattern.
	get(f.base+"/oauth/callback", f.limited(f.callback))
	get(f.base+"/oauth/callback/", f.limited(f.callback))
}

// limited bounds how often an address comes back. Nothing of the request is looked at
// before: the same one is good again a moment later.
func (f *Front) limited(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if ok, wait := f.cfg.ReturnLimiter.Allow(web.ClientAddress(r, f.cfg.TrustedProxies)); !ok {
			w.Header().Set("Retry-After", web.RetryAfter(wait))
			f.fail(w, r, fault.New(fault.Exhausted, "too many browsers came back to a login from this address"))
			return
		}
		h(w, r)
	}
}

func notAllowed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", http.MethodGet)
	w.WriteHeader(http.StatusMethodNotAllowed)
}

func (f *Front) authorize(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if ok, _ := f.cfg.Limiter.Allow(web.ClientAddress(r, f.cfg.TrustedProxies)); !ok {
		f.cfg.Metrics.RequestRefused(ctx, metrics.Limited)
		f.fail(w, r, fault.New(fault.Exhausted, "too many logins were begun from this address"))
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		f.refuse(w, r, "", fault.Wrap(fault.Invalid, err, "the query is malformed").WithReason(authorize.ReasonRequest))
		return
	}
	client, params, err := f.cfg.Checker.Check(ctx, query)
	if err != nil {
		f.refuse(w, r, query.Get("client_id"), err)
		return
	}
	browser := f.cookie.ensure(w, r)
	step, err := f.cfg.Chain.Start(ctx, client, params, browser)
	if err == nil && step.Redirect != "" {
		f.sendBack(w, r, http.StatusServiceUnavailable, params.RedirectURI, step.Redirect)
		return
	}
	f.show(w, r, step, err)
}

// refuse answers a request that did not pass the checks.
func (f *Front) refuse(w http.ResponseWriter, r *http.Request, clientID string, err error) {
	refusal, ok := clientError(err)
	if !ok {
		f.cfg.Metrics.RequestRefused(r.Context(), cmp.Or(fault.ReasonOf(err), "error"))
		f.fail(w, r, err)
		return
	}
	f.cfg.Metrics.RequestRefused(r.Context(), refusal.Code)
	telemetry.Audit(r.Context(), f.cfg.Logger, "login.authorize", refusal.Code,
		slog.String("detail", refusal.Description), slog.String("client_id", clientID))
	f.sendBack(w, r, http.StatusBadRequest, refusal.RedirectURI, chain.Response(refusal.RedirectURI, f.cfg.Issuer, refusal.State,
		url.Values{"error": {refusal.Code}, "error_description": {refusal.Description}}))
}

// sendBack answers a client with an error before the person has agreed to anything.
// Anybody may register a client, and a link to us must not lead to just any site
// (RFC 9700, section 4.11.2): the person sees where it leads and decides. Only to a
// program on their own computer they are sent at once.
func (f *Front) sendBack(w http.ResponseWriter, r *http.Request, status int, redirectURI, target string) {
	place, loopback := clients.ReturnsTo(redirectURI)
	if loopback {
		redirect(w, target)
		return
	}
	page := pages.Error{
		Title: "The sign-in cannot begin",
		What:  "The application sent a request that does not work, or something that the sign-in needs is not available at the moment.",
		Next:  "If you have just asked this application to connect, go back to it: it is told what went wrong. If you followed a link to get here, close this page.",
		Return: &pages.Return{
			Place: place, URL: template.URL(target), //nolint:gosec // of a registered redirect URI, whose scheme was checked
		},
		Reference: web.Reference(r.Context()),
	}
	if err := f.cfg.Pages.Error(w, status, page); err != nil {
		f.log(r.Context(), err)
	}
}

func (f *Front) consent(w http.ResponseWriter, r *http.Request) {
	if ok, _ := f.cfg.ConsentLimiter.Allow(web.ClientAddress(r, f.cfg.TrustedProxies)); !ok {
		f.fail(w, r, fault.New(fault.Exhausted, "too many logins were answered from this address"))
		return
	}
	a, ok := f.form(w, r, questionConsent, "approve", "deny")
	if !ok {
		return
	}
	answer := f.cfg.Chain.Deny
	if a.decision == "approve" {
		answer = f.cfg.Chain.Approve
	}
	step, err := answer(r.Context(), a.request, a.browser)
	f.show(w, r, step, err)
}

func (f *Front) showConfirm(w http.ResponseWriter, r *http.Request) {
	browser, ok := f.cookie.read(r)
	if !ok {
		f.fail(w, r, noCookie())
		return
	}
	step, err := f.cfg.Chain.Question(r.Context(), r.URL.Query().Get("request"), browser)
	if err == nil && step.Confirm != nil {
		f.confirmPage(w, r, step)
		return
	}
	f.show(w, r, step, err)
}

func (f *Front) confirm(w http.ResponseWriter, r *http.Request) {
	a, ok := f.form(w, r, questionConfirm, "confirm", "cancel")
	if !ok {
		return
	}
	var step chain.Step
	var err error
	if a.decision == "confirm" {
		step, err = f.cfg.Chain.Confirm(r.Context(), a.request, a.browser, a.version)
	} else {
		step, err = f.cfg.Chain.Cancel(r.Context(), a.request, a.browser)
	}
	f.show(w, r, step, err)
}

func (f *Front) callback(w http.ResponseWriter, r *http.Request) {
	providers, known := f.cfg.Callbacks[r.URL.EscapedPath()]
	if !known {
		http.NotFound(w, r)
		return
	}
	browser, ok := f.cookie.read(r)
	if !ok {
		f.fail(w, r, noCookie())
		return
	}
	q := r.URL.Query()
	cb := chain.Callback{Providers: providers, Error: q.Get("error"), Iss: q.Get("iss"), IssSent: q.Has("iss")}
	if len(q["state"]) == 1 {
		cb.State = q.Get("state")
	}
	if len(q["code"]) == 1 { // an answer with two codes is none
		cb.Code = q.Get("code")
	}
	step, err := f.cfg.Chain.Return(r.Context(), cb, browser)
	f.show(w, r, step, err)
}

// show sends the browser to the next step.
func (f *Front) show(w http.ResponseWriter, r *http.Request, step chain.Step, err error) {
	switch {
	case err != nil:
		f.fail(w, r, err)
	case step.Consent != nil:
		f.consentPage(w, r, step)
	case step.Confirm != nil: // a page of its own, so that a reload asks again
		redirect(w, f.base+"/oauth/confirm?"+url.Values{"request": {step.Confirm.ID}}.Encode())
	default:
		redirect(w, step.Redirect)
	}
}

// redirect answers 303: the browser goes on with GET whatever it came with (RFC
// 9700, section 4.12: never 307). http.Redirect would rewrite the URL.
func redirect(w http.ResponseWriter, target string) {
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}

// answer is what a person says to one of our forms.
type answer struct {
	request  string
	browser  []byte
	decision string
	// version of the request that the question was about.
	version int64
}

// form reads one of our forms and checks that this browser got it from us, and that
// its decision is one of those that the question has.
func (f *Front) form(w http.ResponseWriter, r *http.Request, question string, decisions ...string) (a answer, ok bool) {
	if err := web.ReadForm(w, r, maxFormBytes); err != nil {
		f.fail(w, r, err)
		return a, false
	}
	if a.browser, ok = f.cookie.read(r); !ok {
		f.fail(w, r, noCookie())
		return a, false
	}
	a.request, a.decision = r.PostForm.Get("request"), r.PostForm.Get("decision")
	var err error
	if a.version, err = f.checkToken(r.PostForm.Get("csrf"), question, a.request, a.browser); err != nil {
		f.fail(w, r, err)
		return a, false
	}
	if !slices.Contains(decisions, a.decision) {
		f.fail(w, r, fault.New(fault.Invalid, "the form has no answer").WithReason(reasonForm))
		return a, false
	}
	return a, true
}

// log writes the cause of an error page, once.
func (f *Front) log(ctx context.Context, err error) {
	level := slog.LevelInfo
	switch fault.KindOf(err) {
	case fault.Internal:
		level = slog.LevelError
	case fault.Unavailable, fault.Timeout:
		level = slog.LevelWarn
	}
	f.cfg.Logger.LogAttrs(ctx, level, "error page", fault.Attr(err))
}

func (f *Front) consentPage(w http.ResponseWriter, r *http.Request, step chain.Step) {
	req := step.Consent
	place, loopback := returnsTo(req)
	page := pages.Consent{
		Action: f.base + "/oauth/consent", Request: req.ID, Token: f.token(questionConsent, req),
		ClientName: step.Client.Name, SelfRegistered: true, ReturnsTo: place, Loopback: loopback, Resources: req.Params.Resources,
		Permissions: pages.Own(req.Params.Scopes), Targets: targets(req), Reference: web.Reference(r.Context()),
	}
	for _, p := range req.Progress.Providers {
		page.Providers = append(page.Providers, pages.Provider{
			Name: p.Name, Primary: p.Primary, Optional: p.Optional, Unavailable: p.Unavailable, Permissions: pages.Permissions(p.Scopes),
		})
	}
	if err := f.cfg.Pages.Consent(w, page); err != nil {
		f.log(r.Context(), err)
	}
}

func (f *Front) confirmPage(w http.ResponseWriter, r *http.Request, step chain.Step) {
	req := step.Confirm
	page := pages.Confirm{
		Action: f.base + "/oauth/confirm", Request: req.ID, Token: f.token(questionConfirm, req),
		ClientName: step.Client.Name, Targets: targets(req), Reference: web.Reference(r.Context()),
	}
	for _, c := range req.Progress.Changes {
		page.Changes = append(page.Changes, pages.Change(c))
	}
	if err := f.cfg.Pages.Confirm(w, page); err != nil {
		f.log(r.Context(), err)
	}
}

// targets are the schemes that the rest of the login may redirect to.
func targets(req *store.AuthorizationRequest) []string {
	urls := []string{req.Params.RedirectURI}
	for _, p := range req.Progress.Providers {
		urls = append(urls, p.AuthorizationEndpoint)
	}
	return pages.FormTargets(urls...)
}
