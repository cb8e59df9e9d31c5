package stack

import (
	"path/filepath"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/telemetry"
)

// DialBroker connects to the broker as one of the stack's peers: operator,
// gateway, authserver or tokenbroker.
func (s *Stack) DialBroker(peer string) (*grpc.ClientConn, error) {
	tls, err := rpc.LoadTLS(rpc.TLSFiles{
		Cert: filepath.Join(s.TLSDir(), peer+".crt"),
		Key:  filepath.Join(s.TLSDir(), peer+".key"),
		CA:   filepath.Join(s.TLSDir(), "ca.crt"),
	}, nil)
	if err != nil {
		return nil, err
	}
	return rpc.Dial(rpc.ClientConfig{Address: s.BrokerAddress(), ServerName: "tokenbroker", TLS: tls, Telemetry: telemetry.Discard()})
}
