//go:build compose

package compose

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/e2e/crowd"
	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

const (
	mcpURL      = "http://localhost:8000/mcp"
	redirectURI = "http://127.0.0.1:33418/callback"
	// attempts of a client, and how long it waits before each but the first.
	attempts = 4
	pause    = 250 * time.Millisecond
)

// failure is one attempt that went wrong.
type failure struct {
	at   time.Time
	what string
	err  error
}

// tally is what the clients of a test saw.
type tally struct {
	mu            sync.Mutex
	calls, logins int
	failed        []failure // attempts
	lost          []failure // what no attempt could do
}

// do runs one piece of work as a client that tries again.
func (y *tally) do(ctx context.Context, what string, count *int, try func() error) {
	var err error
	for i := range attempts {
		if i > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
		if err = try(); err == nil || ctx.Err() != nil {
			break
		}
		y.mu.Lock()
		y.failed = append(y.failed, failure{time.Now(), what, err})
		y.mu.Unlock()
	}
	if ctx.Err() != nil {
		return // the end of the test is no failure
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	*count++
	if err != nil {
		y.lost = append(y.lost, failure{time.Now(), what, err})
	}
}

func (y *tally) counts() (calls, logins int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.calls, y.logins
}

// logIn is a whole login, from the challenge to the token.
func logIn(ctx context.Context, p crowd.Person) (*journey.Login, error) {
	client := &http.Client{Timeout: 15 * time.Second}
	found, err := journey.Discover(ctx, client, mcpURL)
	if err != nil {
		return nil, err
	}
	registered, err := found.Register(ctx, client, "Desk assistant", redirectURI)
	if err != nil {
		return nil, err
	}
	person, err := browse.New(browse.Options{Account: browse.Account{Username: p.Username, Password: p.Password}})
	if err != nil {
		return nil, err
	}
	login, err := registered.Login(ctx, person)
	if err != nil {
		return nil, err
	}
	login.Token, err = registered.Refresh(ctx, login.Token.RefreshToken)
	return login, err
}

// keepLoggingIn logs the person in, again and again.
func (y *tally) keepLoggingIn(ctx context.Context, p crowd.Person) {
	for ctx.Err() == nil {
		y.do(ctx, "login", &y.logins, func() error {
			_, err := logIn(ctx, p)
			return err
		})
	}
}

// keepCalling calls one tool of each backend, again and again, in one MCP session
// as long as that works, and checks whose data come back.
func (y *tally) keepCalling(ctx context.Context, p crowd.Person, version string) error {
	login, err := logIn(ctx, p)
	if err != nil {
		return err
	}
	var session *mcp.ClientSession
	defer func() {
		if session != nil {
			_ = session.Close()
		}
	}()
	call := func(tool, want string) error {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		var err error
		if session == nil {
			if session, err = login.Connect(ctx, journey.ConnectOptions{ProtocolVersion: version}); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		}
		answer, err := journey.Call(ctx, session, tool, nil)
		if err == nil && !strings.Contains(answer, want) {
			err = errors.New("the answer is about somebody else: " + answer)
		}
		return err
	}
	tools := []struct{ name, want string }{{"repos_whoami", p.Login}, {"payroll_whoami", p.Name}, {"status_service_status", ""}}
	for i := 0; ctx.Err() == nil; i++ {
		tool := tools[i%len(tools)]
		tries := 0
		y.do(ctx, version+" "+tool.name, &y.calls, func() error {
			if tries++; tries > 2 && session != nil { // the client gave its session up
				_ = session.Close()
				session = nil
			}
			return call(tool.name, tool.want)
		})
	}
	return nil
}
