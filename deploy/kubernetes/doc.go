// Package kubernetes has the manifests, and the tests that hold them to what the
// services are: every overlay is built, decoded strictly into the types of the
// Kubernetes API, put before the restricted Pod Security standard, and compared with
// the flags, secrets and health endpoints of the programs that it starts. Network
// policies are evaluated, as no cluster of a test would.
//
// What it leaves out: a cluster. That is package cluster, `make k8s-test`.
package kubernetes
