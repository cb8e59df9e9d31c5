package app

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"chatelaine.dev/examples/corp"
	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/mcpserver/payroll"
	"chatelaine.dev/examples/mcpserver/repos"
	"chatelaine.dev/examples/mcpserver/status"
	"chatelaine.dev/examples/octohub"
	"chatelaine.dev/examples/people"
)

// loginClient is the client that --redirect-uri is about.
const loginClient = "chatelaine"

type corpCmd struct {
	Addr                   string            `default:"127.0.0.1:5556" help:"Where to listen (${default})."`
	Issuer                 string            `default:"http://localhost:5556" help:"The issuer's URL (${default})."`
	TrustedIssuers         map[string]string `name:"trusted-issuer" placeholder:"ISSUER=JWKS-URL" help:"Issuers whose JWTs may be exchanged here, beside those of the rules."`
	AccessTokenLifetime    time.Duration     `default:"10m" help:"Lifetime of access tokens (${default})."`
	RefreshTokenLifetime   time.Duration     `default:"720h" help:"Lifetime of refresh tokens, from each rotation (${default})."`
	ExchangedTokenLifetime time.Duration     `default:"5m" help:"Lifetime of exchanged tokens (${default})."`
	withState
	withPeople
	common
}

func (c *corpCmd) build(e env) (public, admin http.Handler, err error) {
	everybody, err := people.Load(c.People)
	if err != nil {
		return nil, nil, err
	}
	granted, err := corp.LoadRules(c.Rules)
	if err != nil {
		return nil, nil, err
	}
	for issuer, keys := range c.TrustedIssuers {
		granted.TrustedIssuers = append(granted.TrustedIssuers, corp.TrustedIssuer{Issuer: issuer, JWKSURL: keys})
	}
	if err := c.complete(granted.Registrations()); err != nil {
		return nil, nil, err
	}
	lifetimes := corp.DefaultLifetimes()
	lifetimes.AccessToken, lifetimes.RefreshToken = c.AccessTokenLifetime, c.RefreshTokenLifetime
	lifetimes.ExchangedToken, lifetimes.RefreshGrace = c.ExchangedTokenLifetime, c.RefreshGrace
	p, err := corp.New(corp.Config{
		Issuer: c.Issuer, Rules: granted, People: everybody, StateFile: c.stateFile("corp"), Lifetimes: lifetimes, Client: e.client,
	}, e.tel.Logger)
	if err != nil {
		return nil, nil, err
	}
	return p.Handler(), p.Admin(), nil
}

type octohubCmd struct {
	Addr                 string        `default:"127.0.0.1:5557" help:"Where to listen (${default})."`
	BaseURL              string        `name:"base-url" default:"http://localhost:5557" help:"The host's URL (${default})."`
	AccessTokenLifetime  time.Duration `default:"8h" help:"Lifetime of user tokens (${default}); 0: they do not expire and have no refresh tokens."`
	RefreshTokenLifetime time.Duration `default:"4416h" help:"Lifetime of refresh tokens, from each rotation (${default})."`
	withState
	withPeople
	common
}

func (c *octohubCmd) build(e env) (public, admin http.Handler, err error) {
	everybody, err := people.Load(c.People)
	if err != nil {
		return nil, nil, err
	}
	granted, err := octohub.LoadRules(c.Rules)
	if err != nil {
		return nil, nil, err
	}
	if err := c.complete(granted.Registrations()); err != nil {
		return nil, nil, err
	}
	lifetimes := octohub.DefaultLifetimes()
	lifetimes.AccessToken, lifetimes.RefreshToken, lifetimes.RefreshGrace = c.AccessTokenLifetime, c.RefreshTokenLifetime, c.RefreshGrace
	h, err := octohub.New(octohub.Config{
		BaseURL: c.BaseURL, Rules: granted, People: everybody, StateFile: c.stateFile("octohub"), Lifetimes: lifetimes,
	}, e.tel.Logger)
	if err != nil {
		return nil, nil, err
	}
	return h.Handler(), h.Admin(), nil
}

type reposCmd struct {
	Addr       string `default:"127.0.0.1:7001" help:"Where to listen (${default})."`
	OctohubURL string `name:"octohub-url" default:"http://localhost:5557" help:"The code host's URL (${default})."`
	common
}

func (c *reposCmd) build(e env) (public, admin http.Handler, err error) {
	f := faults.NewBackend()
	public, err = repos.New(repos.Config{
		OctohubURL: c.OctohubURL, Client: e.client, Faults: f, Propagator: e.tel.Propagator, Log: e.tel.Logger,
	})
	return public, faults.Guard(faults.Admin(f)), err
}

type payrollCmd struct {
	Addr      string `default:"127.0.0.1:7002" help:"Where to listen (${default})."`
	Issuer    string `default:"http://localhost:5556" help:"Whose tokens are accepted (${default})."`
	JWKSURL   string `name:"jwks-url" placeholder:"URL" help:"Where the issuer's keys are; without it ISSUER/keys."`
	PublicURL string `name:"public-url" default:"http://localhost:7002" help:"This server's own URL (${default})."`
	withPeople
	common
}

func (c *payrollCmd) build(e env) (public, admin http.Handler, err error) {
	everybody, err := people.Load(c.People)
	if err != nil {
		return nil, nil, err
	}
	jwks := c.JWKSURL
	if jwks == "" {
		jwks = strings.TrimSuffix(c.Issuer, "/") + "/keys"
	}
	f := faults.NewBackend()
	public, err = payroll.New(payroll.Config{
		Issuer: c.Issuer, JWKSURL: jwks, PublicURL: strings.TrimSuffix(c.PublicURL, "/"), People: everybody,
		Client: e.client, Faults: f, Propagator: e.tel.Propagator, Log: e.tel.Logger,
	})
	return public, faults.Guard(faults.Admin(f)), err
}

type statusCmd struct {
	Addr   string            `default:"127.0.0.1:7003" help:"Where to listen (${default})."`
	Probes map[string]string `name:"probe" placeholder:"NAME=URL" default:"corp=http://localhost:5556/healthz;octohub=http://localhost:5557/healthz;repos=http://localhost:7001/healthz;payroll=http://localhost:7002/healthz" help:"Services to watch, and what answers 200 while they are up (${default})."`
	common
}

func (c *statusCmd) build(e env) (public, admin http.Handler, err error) {
	for name, u := range c.Probes {
		if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
			return nil, nil, fmt.Errorf("--probe %s: %q is no URL", name, u)
		}
	}
	f := faults.NewBackend()
	public = status.New(status.Config{
		Probes: c.Probes, Client: e.client, Faults: f, Propagator: e.tel.Propagator, Log: e.tel.Logger,
	})
	return public, faults.Guard(faults.Admin(f)), nil
}
