package app_test

import (
	"os"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/tokenbroker/internal/app"
)

const mintedEntries = `
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: ledger}
spec: {groupRef: {name: demo}, remoteUrl: "http://localhost:7004/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: for-ledger}
spec: {type: tokenExchange, tokenExchange: {tokenUrl: "http://localhost:5556/oauth/token", insecureAllowHTTP: true, clientId: broker, clientSecretRef: {name: octohub, key: client-secret}, audience: ledger}}
`

// A broker that nobody told where the authserver is cannot serve a set that needs
// tokens minted there: it says so before the first call, and names the flag.
func TestASetThatNeedsTheAuthserverIsRefusedWithoutItsAddress(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	g := b.gateway(session, active.GetUserId())
	before, err := os.ReadFile(b.configPath)
	must(t, err)
	text := strings.Replace(string(before), "    backends:\n",
		"    backends:\n      ledger: {type: externalAuthConfigRef, externalAuthConfigRef: {name: for-ledger}}\n", 1) + mintedEntries
	must(t, os.WriteFile(b.configPath, []byte(text), 0o600))

	set, report := config.Load(b.configPath)
	must(t, report.Err())
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "tokenbroker", LogOutput: b.logs})
	must(t, err)
	flags := &app.Flags{JWKSURL: b.issuer.URL}
	flags.KeyEncryptionKey = []secret.Ref{{Name: "broker", Key: "kek0"}}
	_, err = app.New(app.Config{
		Flags: flags, Set: set, Database: b.pool, ListenURL: b.url, Identity: b.ca.TLS("tokenbroker"), Telemetry: tel,
		Secrets: &secret.Resolver{LookupEnv: func(string) (string, bool) { return b.key, true }},
		Health:  telemetry.NewHealth(tel.Logger),
	})
	for _, want := range []string{"backend ledger", "--authserver-address"} {
		if err == nil || !strings.Contains(fault.Detail(err), want) {
			t.Errorf("at the start: %v does not say %q", err, want)
		}
	}
	b.eventually("the running broker to refuse it", func() bool {
		log := b.logs.String()
		return strings.Contains(log, "keeping the last ones") && strings.Contains(log, "--authserver-address")
	})
	if _, err := g.get(t.Context()); err != nil {
		t.Errorf("the set before is not served any more: %v", err)
	}
}
