// Package cluster tests the manifests on a real cluster, the one of KUBECONFIG, while
// clients and people do not rest. `make k8s-test` runs it, for each overlay:
//
//	install      a dry run of the server without a warning, then for real; a login and three calls
//	undisturbed  both replicas of each service have their part of the work
//	restart      each Deployment: not one request may fail
//	delete       each replica: not one request may fail
//	kill         a replica of each service without a warning: what fails is bounded in number and time
//	Postgres     dies three times: clients are told to come again, nothing of ours restarts, all recover
//
// It makes the namespaces chatelaine and chatelaine-demo, and one beside each for the
// privileged pod that kills, and removes them; where one exists already, it touches
// nothing. The images must be on the nodes.
package cluster
