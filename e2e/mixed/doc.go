// Package mixed tests that this version and the one before it serve side by side.
//
// With the build tag "mixed" (`make mixed-test`, which builds the version before from its
// commit) its test starts the three services of the version before, on their schema and
// their resources, migrates the schema to this version's, and replaces one service at a
// time until every mix of the two versions has served. With each, a session that began
// before goes on, somebody logs in and calls tools, and an ended session is refused.
//
// What it leaves out: several replicas, and load while a service is replaced
// (packages compose and deploy/kubernetes/cluster).
package mixed
