package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// redirectURI is where the client says that it listens; the browser stops in front of it.
const redirectURI = "http://127.0.0.1:33418/callback"

// requestTimeout bounds every single thing that is counted.
const requestTimeout = 30 * time.Second

// Config says where to go and how often. All fields are required.
type Config struct {
	MCPURL string
	// Dials maps the HOST:PORT of a URL to the HOST:PORT to connect to.
	Dials   map[string]string
	Account browse.Account
	// Callers and People work at once, each with a pause after each thing it did. Every
	// second caller keeps its connections; the others, and people, come with new ones each time.
	Callers, People int
	CallPause       time.Duration
	LoginPause      time.Duration
	Out             io.Writer
}

// tools are called in turn: an injected token, an exchanged one, none.
var tools = []string{"repos_whoami", "payroll_whoami", "status_service_status"}

// client is one registered OAuth client.
type client struct {
	cfg   Config
	http  *http.Client
	oauth *journey.Client
}

// newHTTP is the HTTP client of one machine.
func newHTTP(cfg Config) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if to, ok := cfg.Dials[address]; ok {
				address = to
			}
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost: cfg.Callers + cfg.People,
		// Below the two minutes of the servers: otherwise a request may meet a
		// connection that its server is just closing.
		IdleConnTimeout: 30 * time.Second,
	}
	return &http.Client{Transport: transport, Timeout: requestTimeout}
}

// elsewhere is the same OAuth client on another machine, with connections of its own.
func (c *client) elsewhere() *client {
	oauth := *c.oauth
	oauth.HTTP = newHTTP(c.cfg)
	return &client{cfg: c.cfg, http: oauth.HTTP, oauth: &oauth}
}

// register discovers and registers, as a new client does.
func register(ctx context.Context, cfg Config) (*client, error) {
	c := &client{cfg: cfg, http: newHTTP(cfg)}
	found, err := journey.Discover(ctx, c.http, cfg.MCPURL)
	if err != nil {
		return nil, err
	}
	c.oauth, err = found.Register(ctx, c.http, "Load", redirectURI)
	return c, err
}

// login is one person at a fresh browser.
func (c *client) login(ctx context.Context) (*journey.Login, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	person, err := browse.New(browse.Options{Account: c.cfg.Account, Transport: c.http.Transport})
	if err != nil {
		return nil, err
	}
	return c.oauth.Login(ctx, person)
}

// call calls one tool and checks that the answer is that tool's.
func call(ctx context.Context, session *mcp.ClientSession, i int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	tool := tools[i%len(tools)]
	answer, err := journey.Call(ctx, session, tool, nil)
	if err == nil && answer == "" {
		err = errors.New(tool + " answered nothing")
	}
	return answer, err
}

// Walk makes one login and three tool calls and prints each step.
func Walk(ctx context.Context, cfg Config) error {
	c, err := register(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(cfg.Out, "resource %s, issuer %s, client %s\n", c.oauth.Discovery.Resource.Resource, c.oauth.Discovery.Server.Issuer, c.oauth.ID)
	login, err := c.login(ctx)
	if err != nil {
		return err
	}
	for _, step := range login.Steps {
		fmt.Fprintln(cfg.Out, step)
	}
	fmt.Fprintf(cfg.Out, "token: sub %s, aud %s, tsid %s\n", login.Claims.Subject, strings.Join(login.Claims.Audience, " "), login.Claims.SessionID)
	session, err := login.Connect(ctx, journey.ConnectOptions{})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = session.Close() }()
	for i, tool := range tools {
		answer, err := call(ctx, session, i)
		if err != nil {
			return err
		}
		fmt.Fprintf(cfg.Out, "%s: %s\n", tool, strings.Join(strings.Fields(answer), " "))
	}
	fmt.Fprintln(cfg.Out, "journey done")
	return nil
}

// Run works until ctx ends and returns what happened. Errors are those of the
// first login, without which there is no load.
func Run(ctx context.Context, cfg Config) (Stats, error) {
	c, err := register(ctx, cfg)
	if err != nil {
		return Stats{}, err
	}
	first, err := c.login(ctx)
	if err != nil {
		return Stats{}, err
	}
	r := &recorder{begin: time.Now(), log: cfg.Out}
	var group sync.WaitGroup
	for i := range cfg.Callers {
		group.Go(func() { c.callers(ctx, r, first, i%2 == 0) })
	}
	for range cfg.People {
		group.Go(func() { c.people(ctx, r) })
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for err == nil && ctx.Err() == nil {
		select {
		case <-tick.C:
			err = r.line()
		case <-ctx.Done():
		}
	}
	group.Wait()
	return r.stats, errors.Join(err, r.line())
}

// callsPerSession is how many calls one MCP session gets.
const callsPerSession = 30

// afterFailure is how long a client waits before it tries again.
const afterFailure = time.Second

// callers calls tools in one session after the other.
func (c *client) callers(ctx context.Context, r *recorder, login *journey.Login, keepConnections bool) {
	for ctx.Err() == nil {
		if keepConnections {
			c.session(ctx, r, login)
			continue
		}
		other := c.elsewhere()
		moved := *login
		moved.Client = other.oauth
		other.session(ctx, r, &moved)
		other.http.CloseIdleConnections()
	}
}

// session calls tools in one session. After a failure it waits, and ends: the next session is new.
func (c *client) session(ctx context.Context, r *recorder, login *journey.Login) {
	work := context.WithoutCancel(ctx) // what has begun may end
	begin := time.Now()
	session, err := login.Connect(work, journey.ConnectOptions{})
	r.note("connect", sessions, begin, err)
	if err != nil {
		pause(ctx, afterFailure)
		return
	}
	defer func() { _ = session.Close() }() // the gateway ends it by itself, too
	for i := 0; i < callsPerSession && ctx.Err() == nil; i++ {
		begin := time.Now()
		_, err := call(work, session, i)
		r.note(tools[i%len(tools)], calls, begin, err)
		if err != nil {
			pause(ctx, afterFailure)
			return
		}
		pause(ctx, c.cfg.CallPause)
	}
}

// people logs in, calls once, and spends a refresh token, each time at another machine.
func (c *client) people(ctx context.Context, r *recorder) {
	for ; ctx.Err() == nil; pause(ctx, c.cfg.LoginPause) {
		person := c.elsewhere()
		person.visit(context.WithoutCancel(ctx), r)
		person.http.CloseIdleConnections()
	}
}

func (c *client) visit(ctx context.Context, r *recorder) {
	begin := time.Now()
	login, err := c.login(ctx)
	r.note("login", logins, begin, err)
	if err != nil {
		return
	}
	begin = time.Now()
	session, err := login.Connect(ctx, journey.ConnectOptions{})
	r.note("connect", sessions, begin, err)
	if err != nil {
		return
	}
	begin = time.Now()
	_, err = call(ctx, session, 0)
	r.note("first call", calls, begin, err)
	_ = session.Close()
	begin = time.Now()
	_, err = c.oauth.Refresh(ctx, login.Token.RefreshToken)
	r.note("refresh", refreshes, begin, err)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
