package app

import (
	"cmp"
	"time"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/seal"
)

// Flags are those of the command serve. Each has a twin in the environment,
// CHATELAINE_ and its name.
type Flags struct {
	cli.Config
	cli.Telemetry
	cli.AdminServer
	cli.TLS
	cli.Database
	cli.Dial
	cli.Drain

	GRPCAddress string `name:"grpc-address" default:":9090" help:"Where the authserver, gateways and operators are served over mutual TLS (${default})."`
	RESTAddress string `name:"rest-address" default:":9091" help:"Where operators are served REST over mutual TLS (${default})."`

	DatabaseListenURL     secret.String `name:"database-listen-url" placeholder:"URL" help:"PostgreSQL URL past any pooler, for events; the main one by default."`
	DatabaseListenURLFile string        `name:"database-listen-url-file" placeholder:"FILE" help:"File with that URL."`

	KeyFlags

	JWKSURL           string `name:"jwks-url" placeholder:"URL" help:"Where the keys of access tokens are; found through the issuer by default."`
	AuthserverAddress string `name:"authserver-address" placeholder:"HOST:PORT" help:"The authserver's gRPC address, for subject tokens; its certificate must name 'authserver'."`

	AuditRetention time.Duration `default:"2160h" help:"How long audit records are kept, at least 24h (${default})."`
	EventRetention time.Duration `default:"24h" help:"How long events are kept for watchers to resume, at least 1h (${default})."`

	UpstreamTimeout time.Duration `default:"10s" help:"Hard deadline of a request to an identity provider (${default})."`
	RefreshLease    time.Duration `default:"20s" help:"How long one broker alone may renew a connection's tokens; longer than the upstream timeout, by what a stopped process may lose (${default})."`

	MaxPendingSessions int `default:"100000" help:"Logins that may be under way, in all replicas together; further ones wait (${default})."`
}

const (
	minAuditRetention = 24 * time.Hour
	minEventRetention = time.Hour
)

// check looks at what kong cannot. Errors are Invalid.
func (f *Flags) check() error {
	switch {
	case f.AuditRetention < minAuditRetention:
		return fault.New(fault.Invalid, "--audit-retention must be at least 24h")
	case f.EventRetention < minEventRetention:
		return fault.New(fault.Invalid, "--event-retention must be at least 1h")
	}
	return cmp.Or(f.checkRefresh(), cli.Positive("max-pending-sessions", f.MaxPendingSessions), f.Drain.Check())
}

const (
	minUpstreamTimeout = 100 * time.Millisecond
	maxRefreshLease    = 10 * time.Minute
)

// checkRefresh makes sure that no renewal outlives its lease: another broker would
// present the same refresh token meanwhile.
func (f *Flags) checkRefresh() error {
	switch {
	case f.UpstreamTimeout < minUpstreamTimeout:
		return fault.New(fault.Invalid, "--upstream-timeout must be at least 100ms")
	case f.RefreshLease > maxRefreshLease:
		return fault.New(fault.Invalid, "--refresh-lease must be at most 10m: nobody renews the tokens of a broker that died before it is over")
	case f.RefreshLease <= f.UpstreamTimeout:
		return fault.Newf(fault.Invalid, "--refresh-lease (%s) must be longer than --upstream-timeout (%s): raise one or lower the other",
			f.RefreshLease, f.UpstreamTimeout)
	}
	return nil
}

// listenURL returns where events are read.
func (f *Flags) listenURL() (secret.String, error) {
	url, err := cli.URLFrom("database-listen-url", f.DatabaseListenURL, f.DatabaseListenURLFile)
	if err != nil {
		return url, err
	}
	if url.IsZero() {
		return f.URL()
	}
	return url, postgres.CheckTransport(url)
}

// KeyFlags name the key-encryption keys.
type KeyFlags struct {
	KeyEncryptionKey []secret.Ref `name:"key-encryption-key" required:"" placeholder:"NAME/KEY" help:"Secret with a key-encryption key: 32 random bytes as base64 text (repeatable, newest first)."`
}

// keys reads the key-encryption keys.
func (f *KeyFlags) keys(secrets *secret.Resolver) (*seal.Keys, error) {
	keys, err := f.list(secrets)
	if err != nil {
		return nil, err
	}
	return seal.NewKeys(keys...)
}

// list reads them in the order of the flags.
func (f *KeyFlags) list(secrets *secret.Resolver) ([]seal.Key, error) {
	keys := make([]seal.Key, len(f.KeyEncryptionKey))
	for i, ref := range f.KeyEncryptionKey {
		text, err := secrets.ResolveKey(ref, seal.KeySize, seal.KeySize)
		if err == nil {
			keys[i], err = seal.FileKey(text)
		}
		if err != nil {
			return nil, fault.From(err).WithPrefix("--key-encryption-key")
		}
	}
	return keys, nil
}
