package app

import (
	"cmp"
	"net/netip"
	"time"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
)

// Flags are those of the command serve. Each has a twin in the environment,
// CHATELAINE_ and its name.
type Flags struct {
	cli.Config
	cli.Telemetry
	cli.AdminServer
	cli.TLS
	cli.Database
	cli.Drain

	PublicAddress string `default:":8080" help:"Where browsers and OAuth clients are served (${default})."`
	GRPCAddress   string `name:"grpc-address" default:":8082" help:"Where the token broker is served over mutual TLS (${default})."`
	BrokerAddress string `required:"" placeholder:"HOST:PORT" help:"The token broker's gRPC address; its certificate must name 'tokenbroker'."`

	TrustedProxy           []string      `placeholder:"CIDR" help:"Network of proxies whose X-Forwarded-For is believed (repeatable)."`
	RegistrationsPerMinute int           `default:"60" help:"Client registrations per minute and address (${default})."`
	RegistrationBurst      int           `default:"300" help:"Client registrations at once and address (${default})."`
	LoginsPerMinute        int           `default:"60" help:"Logins begun, and approved, per minute and address (${default})."`
	LoginBurst             int           `default:"300" help:"Logins begun, and approved, at once and address (${default})."`
	RefreshGrace           time.Duration `default:"60s" help:"How long a rotated refresh token is answered with the same successor, 0 to 5m (${default})."`
	KeyPublishDelay        time.Duration `default:"10m" help:"How long a new signing key is published before it signs (${default})."`
	UnusedClients          time.Duration `default:"24h" help:"When a client that registered and that nobody ever approved is removed (${default})."`
	IdleClients            time.Duration `default:"2160h" help:"When a client without a living session is removed after its last login (${default})."`
}

const maxGrace = 5 * time.Minute

// Check looks at what kong cannot. Errors are Invalid.
func (f *Flags) Check() error {
	if err := cmp.Or(
		cli.Positive("registrations-per-minute", f.RegistrationsPerMinute),
		cli.Positive("registration-burst", f.RegistrationBurst),
		cli.Positive("logins-per-minute", f.LoginsPerMinute),
		cli.Positive("login-burst", f.LoginBurst),
		cli.Positive("unused-clients", f.UnusedClients),
		cli.Positive("idle-clients", f.IdleClients),
		f.Drain.Check(),
	); err != nil {
		return err
	}
	if f.RefreshGrace < 0 || f.RefreshGrace > maxGrace {
		return fault.New(fault.Invalid, "--refresh-grace must be within 0 and 5m")
	}
	if f.KeyPublishDelay < 0 {
		return fault.New(fault.Invalid, "--key-publish-delay must not be negative")
	}
	_, err := f.proxies()
	return err
}

// proxies returns the trusted networks.
func (f *Flags) proxies() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range f.TrustedProxy {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fault.Newf(fault.Invalid, "--trusted-proxy: %q is not a network such as 10.0.0.0/8", text)
		}
		list = append(list, prefix)
	}
	return list, nil
}
