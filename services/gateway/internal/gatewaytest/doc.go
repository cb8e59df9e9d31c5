// Package gatewaytest is the other side of the gateway, for tests: an issuer of
// access tokens with its public keys on HTTP, and a token broker on real gRPC
// with mutual TLS, both scripted by the test.
package gatewaytest
