// Package app wires the token broker: flags and resources in; one gRPC server, its
// REST face and a handful of tasks out. It is the only package that knows all the
// others, and it decides nothing that they could.
//
//	gRPC  :9090  login (authserver), credential and watch, blobs (gateway),
//	             connections (operator, authserver)
//	REST  :9091  connections again, over the same mutual TLS
//	admin :9092  health, metrics
//	tasks        resources, keys, feed, memory, refresh, revoke, sweep, inventory
//
// Nothing here waits for another service or for an upstream. Readiness is one's own
// database with its schema, and key-encryption keys that open what is stored; a key
// that is missing ends the process with a line that names it.
package app
