// Package app wires the authorization server: flags and resources in, one public
// HTTP handler, one gRPC service and a handful of tasks out. It is the only package that
// knows all the others, and it decides nothing that they could.
//
//	public  :8080  discovery, clients, front (authorize … callback), grants (token …)
//	gRPC    :8082  subject, for the token broker alone
//	admin   :8081  health, metrics
//	tasks          resources, keys, outbox, sweep
//
// Nothing here waits for the broker or for an upstream: readiness is the schema and
// the signing keys. Resources that change while it runs are noticed and taken at
// the next start: until then the log and the metric chatelaine_config_current say
// that they are not in use.
package app
