// Package reason holds the reasons of the broker's errors: the values of
// google.rpc.ErrorInfo.reason, by which callers decide. They are part of the API.
//
//	proto/broker/v1: constant, meaning, and which service answers with which
//	here: the same by a short name ──▶ fault.Error.WithReason ──▶ ErrorInfo, audit outcome, metric label
//
// The .proto files name the reasons of each service; a test keeps them and the
// constants the same. Code of the broker uses the constants and documents them by name.
//
// What it leaves out: reasons that no caller sees, which stay in their packages
// (package seal, "stale" of package store) in lower case, and those of internal/fault.
package reason
