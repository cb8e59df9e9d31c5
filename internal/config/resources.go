package config

// API versions under which the resources are accepted. All of them mean the same.
const (
	APIVersion             = "chatelaine.dev/v1alpha1"
	APIVersionToolHiveBeta = "toolhive.stacklok.dev/v1beta1"
	APIVersionToolHive     = "toolhive.stacklok.dev/v1alpha1"
)

// Kinds of resources that a set consists of.
const (
	KindVirtualMCPServer      = "VirtualMCPServer"
	KindMCPExternalAuthConfig = "MCPExternalAuthConfig"
	KindMCPServerEntry        = "MCPServerEntry"
	KindMCPOIDCConfig         = "MCPOIDCConfig"
	KindMCPGroup              = "MCPGroup"
)

// Metadata identifies a resource inside the set.
type Metadata struct {
	// Name of the resource, unique for its kind. A DNS label for an
	// MCPServerEntry (it becomes a part of a URL), otherwise a DNS subdomain.
	Name string `yaml:"name" required:"true"`
	// Namespace that the resource has in Kubernetes. All resources of a set
	// that name one must name the same.
	Namespace string `yaml:"namespace"`
	// Labels are accepted and have no effect.
	Labels map[string]string `yaml:"labels"`
	// Annotations are accepted and have no effect.
	Annotations map[string]string `yaml:"annotations" text:"true"`
}

// SecretKeyRef names a secret value. It is read from
// `$CHATELAINE_SECRETS_DIR/NAME/KEY`, or from the environment variable
// `NAME_KEY`, upper-cased, with every `-` and `.` turned into `_`.
type SecretKeyRef struct {
	// Name of the secret: a Kubernetes Secret, or the folder that it is mounted as.
	Name string `yaml:"name" required:"true"`
	// Key inside the secret: the file name in that folder.
	Key string `yaml:"key" required:"true"`
}

// ObjectRef names another resource of the set.
type ObjectRef struct {
	// Name of the resource that is meant.
	Name string `yaml:"name" required:"true"`
}

// ConfigMapKeyRef names a file of public text, such as certificates. It is
// found like a secret: `$CHATELAINE_SECRETS_DIR/NAME/KEY`.
type ConfigMapKeyRef struct {
	// Name of the ConfigMap, or of the folder that it is mounted as.
	Name string `yaml:"name" required:"true"`
	// Key inside the ConfigMap: the file name in that folder. Default `ca.crt`.
	Key string `yaml:"key" default:"ca.crt"`
}

// CABundleRef says where the PEM certificates are that are trusted beside the
// system's roots.
type CABundleRef struct {
	// ConfigMapRef names the ConfigMap with the PEM certificates.
	ConfigMapRef *ConfigMapKeyRef `yaml:"configMapRef" required:"true"`
}

// VirtualMCPServer is the deployment: how clients log in, which authorization
// server they use, and how its backends are reached. A set has exactly one.
type VirtualMCPServer struct {
	// Metadata of the resource.
	Metadata Metadata `yaml:"metadata" required:"true"`
	// Spec of the deployment.
	Spec VirtualMCPServerSpec `yaml:"spec" required:"true"`
}

// VirtualMCPServerSpec describes the deployment.
type VirtualMCPServerSpec struct {
	// GroupRef names the MCPGroup whose MCPServerEntry resources are the backends.
	GroupRef *ObjectRef `yaml:"groupRef"`
	// IncomingAuth says who may call the gateway.
	IncomingAuth *IncomingAuth `yaml:"incomingAuth" required:"true"`
	// OutgoingAuth says with which credential each backend is called.
	OutgoingAuth *OutgoingAuth `yaml:"outgoingAuth"`
	// AuthServerConfig turns on the authorization server of the deployment.
	// Without it, an issuer of somebody else's signs the tokens.
	AuthServerConfig *AuthServerConfig `yaml:"authServerConfig"`
	// Config has settings of the aggregated endpoint.
	Config *VirtualMCPConfig `yaml:"config"`
}

// IncomingAuth says who may call the gateway.
type IncomingAuth struct {
	// Type is `oidc` (a bearer token is required) or `anonymous` (anybody may
	// call; only backends with static credentials or none can be used).
	Type string `yaml:"type" required:"true" enum:"anonymous,oidc"`
	// OIDCConfigRef names the issuer and the audience. Required for type `oidc`.
	OIDCConfigRef *OIDCConfigRef `yaml:"oidcConfigRef"`
}

// OIDCConfigRef names an MCPOIDCConfig and what is particular to this deployment.
type OIDCConfigRef struct {
	// Name of the MCPOIDCConfig.
	Name string `yaml:"name" required:"true"`
	// Audience that tokens must carry: the public URL of the gateway's
	// aggregated endpoint, such as `https://mcp.example.com/mcp`. Each backend
	// has a resource of its own, `{audience}/{backend}`.
	Audience string `yaml:"audience"`
	// Scopes that the gateway's metadata advertises. Default `[openid]` with an issuer
	// of somebody else's, none with the deployment's own.
	Scopes []string `yaml:"scopes" format:"scope"`
	// ResourceURL is the public URL of the endpoint. When set, it must equal `audience`.
	ResourceURL string `yaml:"resourceUrl"`
}

// OutgoingAuth says with which credential each backend is called.
type OutgoingAuth struct {
	// Source is `discovered` (an entry's own `externalAuthConfigRef` counts,
	// and `backends` overrides it) or `inline` (only `backends` and `default`
	// count). Default `discovered`.
	Source string `yaml:"source" enum:"discovered,inline" default:"discovered"`
	// Default is for backends that nothing else is said about. Without it they
	// are called without a credential.
	Default *BackendAuth `yaml:"default"`
	// Backends maps the name of an MCPServerEntry to how it is authenticated.
	Backends map[string]BackendAuth `yaml:"backends"`
}

// BackendAuth says where the authentication of a backend is described.
type BackendAuth struct {
	// Type is `externalAuthConfigRef`, or `discovered` for the entry's own reference.
	Type string `yaml:"type" required:"true" enum:"discovered,externalAuthConfigRef"`
	// ExternalAuthConfigRef names an MCPExternalAuthConfig. Required for type
	// `externalAuthConfigRef`.
	ExternalAuthConfigRef *ObjectRef `yaml:"externalAuthConfigRef"`
}

// VirtualMCPConfig has settings of the aggregated endpoint.
type VirtualMCPConfig struct {
	// Name is accepted and has no effect.
	Name string `yaml:"name"`
	// GroupRef is an older place for `spec.groupRef.name`.
	GroupRef string `yaml:"groupRef"`
	// Metadata is accepted and has no effect.
	Metadata map[string]string `yaml:"metadata"`
	// Aggregation says how the tools of several backends share one list.
	Aggregation *Aggregation `yaml:"aggregation"`
}

// Aggregation says how the tools of several backends share one list.
type Aggregation struct {
	// ConflictResolution is `prefix`: each tool's name starts with its backend's.
	// `priority` and `manual` are read, warned about, and served as `prefix`.
	ConflictResolution string `yaml:"conflictResolution" enum:"prefix,priority,manual" default:"prefix"`
	// ConflictResolutionConfig has the details of the strategy.
	ConflictResolutionConfig *ConflictResolutionConfig `yaml:"conflictResolutionConfig"`
	// Tools has settings for the tools of single backends.
	Tools []WorkloadTools `yaml:"tools"`
	// ExcludeAllTools would hide every tool. Not supported: `true` is an error.
	ExcludeAllTools bool `yaml:"excludeAllTools"`
}

// ConflictResolutionConfig has the details of a conflict resolution strategy.
type ConflictResolutionConfig struct {
	// PrefixFormat of tool names. Only `{workload}_` is served; others are warned about.
	PrefixFormat string `yaml:"prefixFormat" default:"{workload}_"`
	// PriorityOrder belongs to strategy `priority` and has no effect.
	PriorityOrder []string `yaml:"priorityOrder"`
}

// WorkloadTools has settings for the tools of one backend.
type WorkloadTools struct {
	// Workload is the name of the MCPServerEntry.
	Workload string `yaml:"workload" required:"true"`
	// ToolConfigRef would name an MCPToolConfig. Not supported: an error, because tools would stay visible.
	ToolConfigRef *ObjectRef `yaml:"toolConfigRef"`
	// Filter would list the only tools to show. Not supported: an error, because the others would stay visible.
	Filter []string `yaml:"filter"`
	// Overrides would rename tools or describe them anew. Not supported: a warning.
	Overrides map[string]ToolOverride `yaml:"overrides"`
	// ExcludeAll would hide all tools of the backend. Not supported: `true` is an error.
	ExcludeAll bool `yaml:"excludeAll"`
}

// ToolOverride would change how a tool is shown.
type ToolOverride struct {
	// Name that the tool would have.
	Name string `yaml:"name"`
	// Description that the tool would have.
	Description string `yaml:"description" text:"true"`
}

// MCPServerEntry is a backend: an MCP server that runs elsewhere.
type MCPServerEntry struct {
	// Metadata of the resource. The name is a part of the backend's URL,
	// `/mcp/{name}`, and the prefix of its tools, `{name}_`.
	Metadata Metadata `yaml:"metadata" required:"true"`
	// Spec of the backend.
	Spec MCPServerEntrySpec `yaml:"spec" required:"true"`
}

// MCPServerEntrySpec describes a backend.
type MCPServerEntrySpec struct {
	// GroupRef names the MCPGroup that the backend belongs to.
	GroupRef *ObjectRef `yaml:"groupRef" required:"true"`
	// RemoteURL is the MCP endpoint. `https`, or `http` on a loopback address, or
	// `http` on a private one with `allowPrivateEndpoint`.
	RemoteURL string `yaml:"remoteUrl" required:"true"`
	// Transport is `streamable-http`. `sse`, the transport that it replaced, is refused.
	Transport string `yaml:"transport" required:"true" enum:"streamable-http,sse"`
	// ExternalAuthConfigRef names the MCPExternalAuthConfig that counts when
	// `outgoingAuth.source` is `discovered`.
	ExternalAuthConfigRef *ObjectRef `yaml:"externalAuthConfigRef"`
	// HeaderForward adds headers to every request to this backend.
	HeaderForward *HeaderForward `yaml:"headerForward"`
	// CABundleRef names certificates to trust beside the system's.
	CABundleRef *CABundleRef `yaml:"caBundleRef"`
	// AllowPrivateEndpoint permits an address that is not publicly routable.
	AllowPrivateEndpoint bool `yaml:"allowPrivateEndpoint"`
}

// HeaderForward adds headers to every request to a backend.
type HeaderForward struct {
	// AddPlaintextHeaders maps names to values. Not for secrets: names that
	// sound like one are refused.
	AddPlaintextHeaders map[string]string `yaml:"addPlaintextHeaders"`
	// AddHeadersFromSecret are headers whose values are secrets.
	AddHeadersFromSecret []HeaderFromSecret `yaml:"addHeadersFromSecret"`
}

// HeaderFromSecret is a header whose value is a secret.
type HeaderFromSecret struct {
	// HeaderName is the name of the header, such as `X-API-Key`.
	HeaderName string `yaml:"headerName" required:"true"`
	// ValueSecretRef names the value.
	ValueSecretRef *SecretKeyRef `yaml:"valueSecretRef" required:"true"`
}

// MCPOIDCConfig describes the issuer whose tokens the gateway accepts.
type MCPOIDCConfig struct {
	// Metadata of the resource.
	Metadata Metadata `yaml:"metadata" required:"true"`
	// Spec of the issuer.
	Spec MCPOIDCConfigSpec `yaml:"spec" required:"true"`
}

// MCPOIDCConfigSpec describes an issuer.
type MCPOIDCConfigSpec struct {
	// Type is `inline`. `kubernetesServiceAccount` is known and refused.
	Type string `yaml:"type" required:"true" enum:"inline,kubernetesServiceAccount"`
	// Inline describes the issuer. Required for type `inline`.
	Inline *InlineOIDC `yaml:"inline"`
}

// InlineOIDC describes an issuer.
type InlineOIDC struct {
	// Issuer is the `iss` that tokens must carry, byte for byte. It equals
	// `authServerConfig.issuer` where the deployment has its own authorization server.
	Issuer string `yaml:"issuer" required:"true"`
	// JWKSURL is where the signing keys are. Default: found by discovery.
	JWKSURL string `yaml:"jwksUrl"`
	// CABundleRef names certificates to trust beside the system's when keys are fetched.
	CABundleRef *CABundleRef `yaml:"caBundleRef"`
	// JWKSAllowPrivateIP permits the issuer to have a private address.
	JWKSAllowPrivateIP bool `yaml:"jwksAllowPrivateIP"`
	// ProtectedResourceAllowPrivateIP permits the issuer to have a private
	// address, too; ToolHive reads either of the two.
	ProtectedResourceAllowPrivateIP bool `yaml:"protectedResourceAllowPrivateIP"`
	// InsecureAllowHTTP permits `http` for an issuer that is not on a loopback
	// address. For development only.
	InsecureAllowHTTP bool `yaml:"insecureAllowHTTP"`
}

// MCPGroup names a set of backends.
type MCPGroup struct {
	// Metadata of the resource.
	Metadata Metadata `yaml:"metadata" required:"true"`
	// Spec of the group.
	Spec MCPGroupSpec `yaml:"spec"`
}

// MCPGroupSpec describes a group.
type MCPGroupSpec struct {
	// Description for people. It has no effect.
	Description string `yaml:"description" text:"true"`
}
