package rpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	reflectiongrpc "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"chatelaine.dev/internal/fault"
)

type peerNameKey struct{}

// PeerName returns the name under which the peer of the current call was let in.
// Inside a handler it is always there, but for health, where it is the peer's
// first name.
func PeerName(ctx context.Context) (string, bool) {
	name, ok := ctx.Value(peerNameKey{}).(string)
	return name, ok
}

type forwardedKey struct{}

// WithPeers returns a context whose calls over Server.InProcess are made in the
// name of a peer with these DNS names: those of the client certificate that a
// REST listener in the same process verified (see PeerNames).
func WithPeers(ctx context.Context, names []string) context.Context {
	return context.WithValue(ctx, forwardedKey{}, slices.Clone(names))
}

// forwardedHeader carries WithPeers over the in-process connection. From any
// other connection it means nothing.
const forwardedHeader = "chatelaine-forwarded-peer"

// allowList decides who may call which service.
type allowList struct {
	peers map[string][]string // gRPC service → peer names
}

func newAllowList(peers map[string][]string, reflectionPeers []string) *allowList {
	a := &allowList{peers: make(map[string][]string, len(peers)+2)}
	for service, names := range peers {
		a.peers[service] = slices.Clone(names)
	}
	a.peers[reflectiongrpc.ServerReflection_ServiceDesc.ServiceName] = reflectionPeers
	a.peers[reflectionalpha.ServerReflection_ServiceDesc.ServiceName] = reflectionPeers
	return a
}

// admit returns ctx with the peer's name, or Unauthenticated, or Denied.
func (a *allowList) admit(ctx context.Context, fullMethod string) (context.Context, error) {
	names := peersOf(ctx)
	if len(names) == 0 {
		return nil, fault.New(fault.Unauthenticated, "a client certificate with a DNS name is required").WithReason("peer_unknown")
	}
	service := serviceOf(fullMethod)
	if service == healthgrpc.Health_ServiceDesc.ServiceName {
		return context.WithValue(ctx, peerNameKey{}, names[0]), nil
	}
	for _, allowed := range a.peers[service] {
		if slices.Contains(names, allowed) {
			return context.WithValue(ctx, peerNameKey{}, allowed), nil
		}
	}
	return nil, fault.Newf(fault.Denied, "peer %q may not call %s", strings.Join(names, ","), service).
		WithReason("peer_denied", "service", service)
}

// peersOf returns the verified names of whoever makes the call.
func peersOf(ctx context.Context) []string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	switch info := p.AuthInfo.(type) {
	case credentials.TLSInfo:
		return PeerNames(info.State)
	case inProcessInfo:
		md, _ := metadata.FromIncomingContext(ctx)
		return md.Get(forwardedHeader)
	}
	return nil
}

// serviceOf returns the service of "/package.Service/Method".
func serviceOf(fullMethod string) string {
	service, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	return service
}
