package credential_test

// backends are the same in all modes; each resource set adds the strategies that
// its mode allows.
const backendEntries = `
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: keyed}
spec: {groupRef: {name: demo}, remoteUrl: "https://keyed.example:8443/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: tokened}
spec: {groupRef: {name: demo}, remoteUrl: "https://tokened.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: open}
spec: {groupRef: {name: demo}, remoteUrl: "https://open.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: with-key}
spec: {type: headerInjection, headerInjection: {headerName: x-api-key, valueSecretRef: {name: keyed, key: api-key}}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: with-token}
spec: {type: bearerToken, bearerToken: {tokenSecretRef: {name: tokened, key: token}}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

const perUserEntries = `
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: ledger}
spec: {groupRef: {name: demo}, remoteUrl: "https://ledger.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: for-ledger}
spec: {type: tokenExchange, tokenExchange: {tokenUrl: "$STS/token", clientId: broker, clientSecretRef: {name: sts, key: client-secret}, audience: ledger, externalTokenHeaderName: X-Ledger-Token}}
`

const authServerResources = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  authServerConfig:
    issuer: $ISSUER
    upstreamProviders:
      - name: corp
        type: oidc
        oidcConfig:
          issuerUrl: $OP
          clientId: chatelaine
          clientSecretRef: {name: corp-idp, key: client-secret}
          scopes: [openid, profile, email, offline_access]
      - name: octohub
        type: oauth2
        optional: true
        oauth2Config:
          authorizationEndpoint: $HUB/authorize
          tokenEndpoint: $HUB/token
          clientId: chatelaine
          clientSecretRef: {name: octohub, key: client-secret}
          scopes: [repo]
          userInfo: {endpointUrl: "$HUB/user", fieldMapping: {subjectFields: [id], nameFields: [login]}}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "$AUDIENCE"}
  outgoingAuth:
    source: inline
    backends:
      repos: {type: externalAuthConfigRef, externalAuthConfigRef: {name: as-octohub-user}}
      payroll: {type: externalAuthConfigRef, externalAuthConfigRef: {name: for-payroll}}
      hours: {type: externalAuthConfigRef, externalAuthConfigRef: {name: for-hours}}
      ledger: {type: externalAuthConfigRef, externalAuthConfigRef: {name: for-ledger}}
      keyed: {type: externalAuthConfigRef, externalAuthConfigRef: {name: with-key}}
      tokened: {type: externalAuthConfigRef, externalAuthConfigRef: {name: with-token}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: as-octohub-user}
spec: {type: upstreamInject, upstreamInject: {providerName: octohub}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: for-payroll}
spec: {type: tokenExchange, tokenExchange: {tokenUrl: "$STS/token", clientId: broker, clientSecretRef: {name: sts, key: client-secret}, audience: payroll, subjectProviderName: octohub}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: for-hours}
spec: {type: tokenExchange, tokenExchange: {tokenUrl: "$STS/token", clientId: broker, clientSecretRef: {name: sts, key: client-secret}, audience: hours, subjectProviderName: corp, subjectTokenType: id_token, actorToken: minted}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: repos}
spec: {groupRef: {name: demo}, remoteUrl: "https://repos.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: payroll}
spec: {groupRef: {name: demo}, remoteUrl: "https://payroll.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: hours}
spec: {groupRef: {name: demo}, remoteUrl: "https://hours.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "$ISSUER"}}
` + perUserEntries + backendEntries

const externalResources = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "$AUDIENCE"}
  outgoingAuth:
    source: inline
    backends:
      ledger: {type: externalAuthConfigRef, externalAuthConfigRef: {name: for-ledger}}
      keyed: {type: externalAuthConfigRef, externalAuthConfigRef: {name: with-key}}
      tokened: {type: externalAuthConfigRef, externalAuthConfigRef: {name: with-token}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "$KEYS"}}
` + perUserEntries + backendEntries

const anonymousResources = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  incomingAuth: {type: anonymous}
  outgoingAuth:
    source: inline
    backends:
      keyed: {type: externalAuthConfigRef, externalAuthConfigRef: {name: with-key}}
      tokened: {type: externalAuthConfigRef, externalAuthConfigRef: {name: with-token}}
` + backendEntries
