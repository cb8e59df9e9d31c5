package browse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

const (
	defaultMaxHops = 40
	defaultTimeout = 30 * time.Second
	// maxPage bounds a page, in bytes.
	maxPage = 1 << 20
)

// Account is what a person types into a login form.
type Account struct{ Username, Password string }

// Options say how the person behaves. The zero value has no accounts, presses
// the main button of every form and gives up after 30 seconds or 40 hops.
type Options struct {
	// Account is used at every host that Accounts does not name.
	Account Account
	// Accounts by host, with the port where there is one: "localhost:5556".
	Accounts map[string]Account
	// Press chooses the button of a form. Nil, or an answer of nil, means the
	// main one: the first that does not read like a refusal.
	Press func(Page, Form) *Button
	// OnPage sees every page before its form is filled in; an error ends the walk.
	OnPage func(Page) error
	// Transport sends the requests; nil means the default one.
	Transport http.RoundTripper
	// MaxHops bounds the requests of one walk.
	MaxHops int
	// Timeout bounds one walk.
	Timeout time.Duration
}

// Browser is one person at one browser: cookies last from walk to walk.
type Browser struct {
	opts   Options
	client *http.Client
}

// New returns a Browser without any cookies.
func New(opts Options) (*Browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("browse: %w", err)
	}
	if opts.MaxHops == 0 {
		opts.MaxHops = defaultMaxHops
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	return &Browser{opts: opts, client: &http.Client{
		Jar:           jar,
		Transport:     opts.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Step is one request of a walk. It has no query: that may hold codes.
type Step struct {
	Method string
	// URL is scheme, host and path.
	URL    string
	Status int
	// Title is the page's, if it was one.
	Title string
	// Pressed is the label of the button that brought the person here.
	Pressed string
}

// String is one line for a log.
func (s Step) String() string {
	line := fmt.Sprintf("%s %s → %d", s.Method, s.URL, s.Status)
	if s.Title != "" {
		line += fmt.Sprintf(" %q", s.Title)
	}
	if s.Pressed != "" {
		line += fmt.Sprintf(" (pressed %q)", s.Pressed)
	}
	return line
}

// Result is where a walk ended and how it came there.
type Result struct {
	// URL begins with the prefix that the walk was to reach. It was not fetched.
	URL   *url.URL
	Steps []Step
}

// StuckError means that a page led nowhere: an error page, a page without a
// form, or a login form that came back.
type StuckError struct {
	Page  Page
	Why   string
	Steps []Step
}

// Error shows the page's title and the beginning of its text.
func (e *StuckError) Error() string {
	return fmt.Sprintf("browse: stuck at %s (status %d, %q): %s: %s", place(e.Page.URL), e.Page.Status, e.Page.Title, e.Why, excerpt(e.Page.Text))
}

// errTooManyHops ends walks in circles.
var errTooManyHops = errors.New("browse: too many hops")

// Walk opens start and goes on until the browser is redirected to a URL that
// begins with until. Errors are *StuckError, or those of the network.
func (b *Browser) Walk(ctx context.Context, start, until string) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, start, nil)
	if err != nil {
		return Result{}, fmt.Errorf("browse: %w", err)
	}
	w := &walk{browser: b, until: until, loginForms: map[string]int{}}
	site := "none"
	for range b.opts.MaxHops {
		if strings.HasPrefix(req.URL.String(), until) {
			return Result{URL: req.URL, Steps: w.steps}, nil
		}
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "document")
		if req.Header.Get("Sec-Fetch-Site") == "" {
			req.Header.Set("Sec-Fetch-Site", site)
		}
		if req, err = w.hop(ctx, req); err != nil {
			return Result{Steps: w.steps}, err
		}
		site = "cross-site" // what a navigation is once it was redirected across hosts
	}
	return Result{Steps: w.steps}, errTooManyHops
}

// walk is the state of one Walk.
type walk struct {
	browser    *Browser
	until      string
	steps      []Step
	loginForms map[string]int
	pressed    string
}

// hop sends one request and returns the next.
func (w *walk) hop(ctx context.Context, req *http.Request) (*http.Request, error) {
	resp, err := w.browser.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("browse: %w", withoutQuery(err))
	}
	defer resp.Body.Close()
	step := Step{Method: req.Method, URL: place(req.URL), Status: resp.StatusCode, Pressed: w.pressed}
	w.pressed = ""

	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		w.steps = append(w.steps, step)
		return w.follow(ctx, req, resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("browse: read %s: %w", place(req.URL), err)
	}
	if len(body) > maxPage {
		return nil, fmt.Errorf("browse: the page at %s is larger than %d bytes", place(req.URL), maxPage)
	}
	pg, err := parsePage(req.URL, resp, body)
	if err != nil {
		return nil, err
	}
	step.Title = pg.Title
	w.steps = append(w.steps, step)
	return w.read(ctx, pg)
}

// follow makes the request of a redirect. A form must not be sent on to
// somebody else, so 307 and 308 after a POST are errors.
func (w *walk) follow(ctx context.Context, req *http.Request, resp *http.Response) (*http.Request, error) {
	if req.Method == http.MethodPost && (resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusPermanentRedirect) {
		return nil, fmt.Errorf("browse: %s answers a form with %d, which repeats the form at the next host", place(req.URL), resp.StatusCode)
	}
	next, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("browse: %s redirects nowhere: %w", place(req.URL), err)
	}
	return http.NewRequestWithContext(ctx, http.MethodGet, next.String(), nil)
}

// read decides what to do on a page.
func (w *walk) read(ctx context.Context, pg Page) (*http.Request, error) {
	stuck := func(why string) error { return &StuckError{Page: pg, Why: why, Steps: w.steps} }
	if on := w.browser.opts.OnPage; on != nil {
		if err := on(pg); err != nil {
			return nil, err
		}
	}
	if pg.Status >= 400 {
		return nil, stuck("the server refuses")
	}
	form, ok := pg.mainForm()
	if !ok {
		return nil, stuck("there is no form to go on with")
	}
	if form.asksPassword() {
		key := place(pg.URL) + " " + form.Action.Path
		if w.loginForms[key]++; w.loginForms[key] > 1 {
			return nil, stuck("the login form came back")
		}
	}
	button := w.choose(pg, form)
	if button != nil {
		w.pressed = button.Label
	}
	return form.request(ctx, pg, w.account(pg.URL), button)
}

func (w *walk) choose(pg Page, form Form) *Button {
	if press := w.browser.opts.Press; press != nil {
		if b := press(pg, form); b != nil {
			return b
		}
	}
	return form.mainButton()
}

func (w *walk) account(u *url.URL) Account {
	if a, ok := w.browser.opts.Accounts[u.Host]; ok {
		return a
	}
	return w.browser.opts.Account
}

func place(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }

// withoutQuery removes the URL from a network error: it may hold a code.
func withoutQuery(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		if u, perr := url.Parse(ue.URL); perr == nil {
			return fmt.Errorf("%s %s: %w", ue.Op, place(u), ue.Err)
		}
		return ue.Err
	}
	return err
}

func excerpt(text string) string {
	const limit = 300
	if len(text) > limit {
		return text[:limit] + "…"
	}
	return text
}
