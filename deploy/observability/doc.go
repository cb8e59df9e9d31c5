// Package observability has the alert rules and the Grafana board, and the tests that
// hold them to the metrics and labels that the services really have.
package observability
