package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"chatelaine.dev/internal/fault"
)

// TLSFiles are the paths of PEM files: this service's certificate and key, and
// the authority that signs all our services.
type TLSFiles struct {
	Cert string
	Key  string
	CA   string
}

// recheckEvery is how old the last look at the files may be when a handshake starts.
const recheckEvery = 5 * time.Second

// TLS is the identity read from TLSFiles, followed as the files change.
type TLS struct {
	files  TLSFiles
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	current *identity
	stamps  [3]stamp
	checked time.Time
	problem string // what the log was told last
}

type identity struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

// stamp tells whether a file changed.
type stamp struct {
	modified time.Time
	size     int64
}

// LoadTLS reads the files now; errors are Invalid and name the file. Later
// changes are followed: a handshake looks at the files when the last look is
// older than five seconds. Files that cannot be used (a key that does not match
// yet, in the middle of a rotation) are logged and the last good ones stay.
// logger may be nil.
func LoadTLS(files TLSFiles, logger *slog.Logger) (*TLS, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	t := &TLS{files: files, logger: logger, now: time.Now}
	stamps, err := t.stat()
	if err != nil {
		return nil, err
	}
	id, err := t.read()
	if err != nil {
		return nil, err
	}
	t.current, t.stamps, t.checked = id, stamps, t.now()
	return t, nil
}

// ServerConfig is for servers: TLS 1.3, a client certificate of our authority is
// required. protocols are the ALPN names ("h2", "http/1.1").
func (t *TLS) ServerConfig(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			id := t.identity()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				NextProtos:   protocols,
				Certificates: []tls.Certificate{id.cert},
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ClientCAs:    id.roots,
				// A resumed session would not see that an authority was removed.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// ClientConfig is for one connection to the server that is called serverName.
// It holds the files as they are now.
func (t *TLS) ClientConfig(serverName string) *tls.Config {
	id := t.identity()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		ServerName:   serverName,
		RootCAs:      id.roots,
		Certificates: []tls.Certificate{id.cert},
	}
}

// DialTLSContext returns a dialer for http.Transport.DialTLSContext that shows
// our certificate and expects serverName's, with the files as they are at each
// dial.
func (t *TLS) DialTLSContext(serverName string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		cfg := t.ClientConfig(serverName)
		cfg.NextProtos = []string{"h2", "http/1.1"}
		return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: cfg}).DialContext(ctx, network, addr)
	}
}

// identity returns the newest usable identity.
func (t *TLS) identity() *identity {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now.Sub(t.checked) < recheckEvery {
		return t.current
	}
	t.checked = now
	stamps, err := t.stat()
	if err == nil && stamps == t.stamps {
		t.problem = ""
		return t.current
	}
	var id *identity
	if err == nil {
		id, err = t.read()
	}
	if err != nil {
		if text := fault.Detail(err); text != t.problem { // once, not at each look
			t.problem = text
			t.logger.Error("keeping the last good TLS files", slog.Time("expires", t.current.cert.Leaf.NotAfter), fault.Attr(err))
		}
		return t.current
	}
	t.logger.Info("TLS files changed", slog.String("certificate", t.files.Cert), slog.Time("expires", id.cert.Leaf.NotAfter))
	t.current, t.stamps, t.problem = id, stamps, ""
	return id
}

// named are the files with what they are to whoever reads an error.
func (t *TLS) named() [3]struct{ what, path string } {
	return [3]struct{ what, path string }{
		{"certificate (--tls-cert)", t.files.Cert}, {"key (--tls-key)", t.files.Key}, {"authority (--tls-ca)", t.files.CA},
	}
}

func (t *TLS) stat() (stamps [3]stamp, err error) {
	for i, file := range t.named() {
		info, err := os.Stat(file.path)
		if err != nil {
			return stamps, unreadable(file.what, err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

func unreadable(what string, err error) error {
	return fault.Wrap(fault.Invalid, err, "cannot read the file of the TLS "+what).WithReason("tls_files")
}

func (t *TLS) read() (*identity, error) {
	var pem [3][]byte
	for i, file := range t.named() {
		var err error
		if pem[i], err = os.ReadFile(file.path); err != nil {
			return nil, unreadable(file.what, err)
		}
	}
	cert, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot use the TLS certificate "+t.files.Cert+" (--tls-cert) with the key "+t.files.Key+" (--tls-key): both must be PEM and belong together").
			WithReason("tls_files")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem[2]) {
		return nil, fault.New(fault.Invalid, "the TLS authority "+t.files.CA+" (--tls-ca) has no PEM certificate").WithReason("tls_files")
	}
	return &identity{cert: cert, roots: roots}, nil
}

// PeerNames returns the DNS names of the verified peer of a connection; nil when
// no certificate was verified.
func PeerNames(state tls.ConnectionState) []string {
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return slices.Clone(state.VerifiedChains[0][0].DNSNames)
}

// clientCredentials are credentials.NewTLS with a fresh configuration for each
// handshake, because tls.Config cannot reload the roots of a client.
type clientCredentials struct {
	tls        *TLS
	serverName string
}

func (c *clientCredentials) now() credentials.TransportCredentials {
	return credentials.NewTLS(c.tls.ClientConfig(c.serverName))
}

func (c *clientCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.now().ClientHandshake(ctx, authority, conn)
}

func (c *clientCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.now().ServerHandshake(conn) // never called: these are a client's
}

func (c *clientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c *clientCredentials) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

func (c *clientCredentials) OverrideServerName(name string) error {
	c.serverName = name
	return nil
}
