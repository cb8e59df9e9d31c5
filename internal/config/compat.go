package config

import "reflect"

// compatVerdict says what becomes of a field that ToolHive has and we lack.
type compatVerdict int

const (
	// compatSilent: accepted; nobody can expect an effect.
	compatSilent compatVerdict = iota
	// compatWarn: ignored with a warning; nothing becomes less protected.
	compatWarn
	// compatRefuse: an error, because ignoring it would weaken protection.
	compatRefuse
)

type compatField struct {
	verdict compatVerdict
	reason  string
}

func silent() compatField            { return compatField{verdict: compatSilent} }
func ignored(why string) compatField { return compatField{compatWarn, "is ignored: " + why} }
func refused(why string) compatField {
	return compatField{compatRefuse, "is not supported, and ignoring it would weaken protection: " + why}
}

// compatFor looks up a field that ToolHive's type of the same meaning has.
func compatFor(t reflect.Type, field string) (compatField, bool) {
	c, ok := compatFields(t)[field]
	return c, ok
}

// compatFields lists what ToolHive's v1beta1 types have beside ours.
func compatFields(t reflect.Type) map[string]compatField {
	const kubernetes = "how the services run in Kubernetes is described by their manifests"
	switch t {
	case reflect.TypeFor[VirtualMCPServer](), reflect.TypeFor[MCPExternalAuthConfig](), reflect.TypeFor[MCPServerEntry](),
		reflect.TypeFor[MCPOIDCConfig](), reflect.TypeFor[MCPGroup]():
		// The first two were read before; the last is what kubectl shows.
		return map[string]compatField{"apiVersion": silent(), "kind": silent(), "status": silent()}
	case reflect.TypeFor[Metadata]():
		return map[string]compatField{
			"uid": silent(), "resourceVersion": silent(), "generation": silent(), "creationTimestamp": silent(),
			"deletionTimestamp": silent(), "deletionGracePeriodSeconds": silent(), "managedFields": silent(),
			"finalizers": silent(), "ownerReferences": silent(), "generateName": silent(), "selfLink": silent(),
		}
	case reflect.TypeFor[ConfigMapKeyRef]():
		return map[string]compatField{"optional": ignored("certificates that are named must be there")}
	case reflect.TypeFor[VirtualMCPServerSpec]():
		return map[string]compatField{
			"serviceType": ignored(kubernetes), "sessionAffinity": ignored("any replica serves any request of a session"),
			"serviceAccount": ignored(kubernetes), "podTemplateSpec": ignored(kubernetes), "replicas": ignored(kubernetes),
			"imagePullSecrets": ignored(kubernetes), "sessionStorage": ignored("sessions are kept in Postgres"),
			"telemetryConfigRef": ignored("telemetry is set by flags"),
			"embeddingServerRef": ignored("there is no optimizer"),
			"rateLimiting":       refused("calls would not be limited; limit them in front of the gateway and remove this field"),
		}
	case reflect.TypeFor[IncomingAuth]():
		return map[string]compatField{
			"authzConfig": refused("its policies would not be enforced; remove it only if every authenticated user may call every tool"),
			"oidcConfig":  refused("this older form names no MCPOIDCConfig; move it to one and name it with oidcConfigRef"),
		}
	case reflect.TypeFor[VirtualMCPConfig]():
		return map[string]compatField{
			"backends":           ignored("backends are MCPServerEntry resources"),
			"incomingAuth":       ignored("spec.incomingAuth counts, as it does in ToolHive"),
			"outgoingAuth":       ignored("spec.outgoingAuth counts, as it does in ToolHive"),
			"compositeTools":     ignored("composite tools are not supported; they will not be listed"),
			"compositeToolRefs":  ignored("composite tools are not supported; they will not be listed"),
			"operational":        ignored("timeouts and health checks are the gateway's own"),
			"telemetry":          ignored("telemetry is set by flags"),
			"audit":              ignored("the broker keeps an audit log of its own"),
			"optimizer":          ignored("there is no optimizer; all tools are listed"),
			"sessionStorage":     ignored("sessions are kept in Postgres"),
			"codeMode":           ignored("there is no code mode"),
			"passthroughHeaders": ignored("headers of clients are not passed on"),
			"rateLimiting":       refused("calls would not be limited; limit them in front of the gateway and remove this field"),
			"authServer":         refused("this older form is not read; use spec.authServerConfig"),
		}
	case reflect.TypeFor[AuthServerConfig]():
		const grants = "only users log in here; there is no grant for workloads"
		return map[string]compatField{
			"storage": ignored("everything is kept in Postgres"), "tlsListener": ignored("TLS material is set by flags"),
			"delegateClients": ignored(grants), "trustedIssuers": ignored(grants), "inboundGrants": ignored(grants),
			"spiffeTrustDomains":                        ignored(grants),
			"allowPrivateKeyJWTRegistration":            ignored("clients cannot register with private_key_jwt"),
			"insecureAllowConfidentialOverLoopbackHTTP": ignored("a loopback issuer needs no such permission"),
			"forceConfidentialRedirectUris":             ignored("a client that registers as a public one gets no secret"),
		}
	case reflect.TypeFor[MCPOIDCConfigSpec]():
		return map[string]compatField{
			"kubernetesServiceAccount": refused("tokens of Kubernetes service accounts cannot be checked; use type inline"),
		}
	case reflect.TypeFor[InlineOIDC]():
		const introspection = "tokens are checked by signature, never by introspection"
		return map[string]compatField{
			"introspectionUrl": ignored(introspection), "clientId": ignored(introspection), "clientSecretRef": ignored(introspection),
			"jwksAuthTokenPath": ignored("keys are fetched without a token"),
		}
	default:
		return nil
	}
}

// foreignKind says what becomes of a document of a kind that ToolHive, or
// Kubernetes, has and we lack.
func foreignKind(kind string) (compatField, bool) {
	switch kind {
	case "MCPServer":
		return ignored("Chatelaine starts no MCP servers; describe where this one can be reached in an MCPServerEntry"), true
	case "MCPRemoteProxy":
		return ignored("describe the remote server in an MCPServerEntry"), true
	case "MCPToolConfig":
		return ignored("tools are neither filtered nor renamed"), true
	case "MCPRegistry", "EmbeddingServer", "MCPEmbedding", "VirtualMCPCompositeToolDefinition":
		return ignored("Chatelaine has no such thing"), true
	case "MCPTelemetryConfig":
		return ignored("telemetry is set by flags"), true
	case "MCPAuthzConfig":
		return refused("its policies would not be enforced; remove it only if every authenticated user may call every tool"), true
	case "MCPWebhookConfig":
		return refused("its webhooks would not be asked; remove it only if calls may go through without them"), true
	default:
		return compatField{}, false
	}
}

// Ignored returns the fields of a resource type that are accepted with a
// warning and have no effect, and why: for the schema and the documentation.
func Ignored(t reflect.Type) map[string]string {
	out := map[string]string{}
	for name, c := range compatFields(t) {
		if c.verdict == compatWarn {
			out[name] = c.reason
		}
	}
	return out
}
