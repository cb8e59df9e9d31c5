package app

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
)

// Flags are those of the command serve. Each has a twin in the environment,
// CHATELAINE_ and its name.
type Flags struct {
	cli.Config
	cli.Telemetry
	cli.AdminServer
	cli.TLS
	cli.Dial
	cli.Drain

	PublicAddress string       `default:":8000" help:"Where MCP clients are served (${default})."`
	BrokerAddress string       `required:"" placeholder:"HOST:PORT" help:"The token broker's gRPC address; its certificate must name 'tokenbroker'."`
	JWKSURL       string       `name:"jwks-url" placeholder:"URL" help:"Where the issuer's public keys are, when not where its metadata says."`
	SessionKey    []secret.Ref `name:"session-key" required:"" placeholder:"NAME/KEY" help:"Secret that seals MCP session ids: 32 bytes as base64 text, the same on all replicas (repeatable, newest first)."`

	MaxUnwatched   time.Duration            `default:"3s" help:"How long the watch of sessions may be silent before cached credentials are confirmed (${default})."`
	BackendTimeout time.Duration            `default:"2m" help:"How long a backend may take until its answer begins (${default})."`
	TimeoutFor     map[string]time.Duration `placeholder:"BACKEND=DURATION" help:"The same for one backend (repeatable)."`
	RequiredScope  []string                 `placeholder:"SCOPE" help:"Scope that every access token must have (repeatable)."`
	AllowedHost    []string                 `placeholder:"HOST" help:"Value of the header Host to accept beside the audience's (repeatable)."`
	AllowedOrigin  []string                 `placeholder:"ORIGIN" help:"Origin of browser clients to accept beside the audience's and loopback (repeatable; * is any)."`
	MaxStreams     int                      `default:"64" help:"Most streams of messages that one login session may have open at a time (${default})."`
	MaxRequests    int                      `default:"128" help:"Most requests, streams not counted, that one person may have running at a time (${default})."`
	MaxBodyBytes   int64                    `default:"4194304" help:"Largest request that is read, in bytes (${default})."`
}

// check looks at what kong cannot. Errors are Invalid.
func (f *Flags) check(backends func(string) bool) error {
	if err := cmp.Or(
		cli.Positive("max-unwatched", f.MaxUnwatched),
		cli.Positive("backend-timeout", f.BackendTimeout),
		cli.Positive("max-body-bytes", f.MaxBodyBytes),
		cli.Positive("max-streams", f.MaxStreams),
		cli.Positive("max-requests", f.MaxRequests),
		f.Drain.Check(),
	); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(f.TimeoutFor)) {
		if !backends(name) {
			return fault.Newf(fault.Invalid, "--timeout-for: there is no backend %q", name)
		}
		if f.TimeoutFor[name] <= 0 {
			return fault.Newf(fault.Invalid, "--timeout-for: the timeout of %s must be greater than zero", name)
		}
	}
	for _, origin := range f.AllowedOrigin {
		if origin != "*" && !strings.Contains(origin, "://") {
			return fault.Newf(fault.Invalid, "--allowed-origin: %q is not scheme://host[:port]", origin)
		}
	}
	return nil
}

// keys resolves the session keys, newest first.
func (f *Flags) keys(secrets *secret.Resolver) (*keyring.Ring, error) {
	keys := make([]secret.Bytes, 0, len(f.SessionKey))
	for _, ref := range f.SessionKey {
		key, err := secrets.ResolveKey(ref, keyring.KeySize, keyring.KeySize)
		if err != nil {
			return nil, fault.From(err).WithPrefix("--session-key")
		}
		keys = append(keys, key)
	}
	return keyring.New(keys...)
}
