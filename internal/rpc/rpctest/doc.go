// Package rpctest gives tests the certificates of named peers, so that they run
// rpc's own mutual TLS and not a stand-in.
//
// [NewCA] makes an authority that lasts as long as its test; from it come the
// files of a peer, its [rpc.TLS], and servers and clients that speak as peers.
//
// What it leaves out: anything that a running service could use.
package rpctest
