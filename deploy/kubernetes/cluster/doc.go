// Package cluster tests the manifests on a real cluster, the one of KUBECONFIG: both
// overlays are applied, a login and three calls are made from inside, then every
// Deployment of ours is restarted and every replica deleted while clients and people
// do not rest; not one of their requests may fail. `make k8s-test` runs it.
//
// It makes the namespaces chatelaine and chatelaine-demo and removes them; where one
// exists already, it touches nothing. The images must be on the nodes.
package cluster
