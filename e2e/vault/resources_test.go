package vault

import "strings"

const (
	ourIssuer = "http://localhost:8080" // nobody is there: the brokers get its keys elsewhere
	audience  = "http://localhost:8000/mcp"
)

// The backends, by what they are sent: a provider's own token, or what the tolerant
// provider's token service makes of its token.
const (
	strictAPI = "strict-api"
	graceAPI  = "grace-api"
	exchanged = "exchanged-api"
)

var backends = []string{strictAPI, graceAPI, exchanged}

// The strict provider is the primary one: were an attempt in doubt taken for proof
// that the person's grant has ended, it would lock their sessions.
const resources = `apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  authServerConfig:
    issuer: OURS
    upstreamProviders:
      - {name: strict, type: oidc, oidcConfig: {issuerUrl: STRICT, clientId: chatelaine, clientSecretRef: {name: providers, key: client-secret}, scopes: [openid, offline_access]}}
      - {name: grace, type: oidc, oidcConfig: {issuerUrl: GRACE, clientId: chatelaine, clientSecretRef: {name: providers, key: client-secret}, scopes: [openid, offline_access]}}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "AUDIENCE"}
  outgoingAuth:
    source: inline
    backends:
      strict-api: {type: externalAuthConfigRef, externalAuthConfigRef: {name: strict-token}}
      grace-api: {type: externalAuthConfigRef, externalAuthConfigRef: {name: grace-token}}
      exchanged-api: {type: externalAuthConfigRef, externalAuthConfigRef: {name: exchanged-token}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: strict-token}
spec: {type: upstreamInject, upstreamInject: {providerName: strict}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: grace-token}
spec: {type: upstreamInject, upstreamInject: {providerName: grace}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: exchanged-token}
spec:
  type: tokenExchange
  tokenExchange: {tokenUrl: GRACE/token, clientId: chatelaine, clientSecretRef: {name: providers, key: client-secret}, audience: exchanged-api, subjectProviderName: grace}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: strict-api}
spec: {groupRef: {name: demo}, remoteUrl: "BACKEND/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: grace-api}
spec: {groupRef: {name: demo}, remoteUrl: "BACKEND/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: exchanged-api}
spec: {groupRef: {name: demo}, remoteUrl: "BACKEND/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "OURS"}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

func resourcesFor(strict, grace, backend, audience string) string {
	return strings.NewReplacer("STRICT", strict, "GRACE", grace, "BACKEND", backend, "AUDIENCE", audience, "OURS", ourIssuer).Replace(resources)
}
