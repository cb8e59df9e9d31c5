package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: chatelaine.dev/v1alpha1\nkind: MCPServerEntry\nmetadata: {name: x}\nspec:\n"
	var bomb strings.Builder
	bomb.WriteString(head + "  headerForward:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "    a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	fmt.Fprintf(&bomb, "    addHeadersFromSecret: *a11\n")
	many := strings.Repeat("kind: MCPGroup\napiVersion: chatelaine.dev/v1alpha1\nmetadata: {name: g}\n---\n", maxDocuments+5)
	wide := head + "  " + strings.Repeat("{a: ", 200) + "1" + strings.Repeat("}", 200) + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"alias bomb":       {bomb.String(), "must be an object"},
		"large file":       {head + "# " + strings.Repeat("x", maxFileBytes), "is larger than 1048576 bytes"},
		"many documents":   {many, "more than 256 documents"},
		"deep nesting":     {wide, "is not a known field"},
		"list of lists":    {head + "  headerForward: {addHeadersFromSecret: " + strings.Repeat("[", 500) + strings.Repeat("]", 500) + "}\n", "must be an object, but is a list"},
		"many problems":    {head + "  " + strings.Repeat("? [a]\n  : b\n  ", 3000), "more than 1000 problems"},
		"self reference":   {head + "  headerForward: &a {addPlaintextHeaders: *a}\n", "must be text"},
		"not UTF-8":        {head + "  remoteUrl: \xff\xfe\n", "is not YAML"},
		"a list":           {"- a\n- b\n", "is not a resource"},
		"text":             {"hello\n", "is not a resource"},
		"broken YAML":      {head + "  a: [\n", "is not YAML"},
		"long text":        {head + "  remoteUrl: https://x.example.com/" + strings.Repeat("x", 5000) + "\n", "is longer than 4096 bytes"},
		"too many headers": {head + "  headerForward: {addHeadersFromSecret: [" + strings.Repeat("{}, ", 300) + "{}]}\n", "more than 256 items"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			set, report := Parse(Source{Name: "x.yaml", Data: []byte(c.text)})
			if set != nil || report.OK() || !strings.Contains(report.String(), c.want) {
				t.Errorf("want %q in\n%.2000s", c.want, report)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestSecretsAreNeverRepeated(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	for _, line := range []string{
		"  tokenExchange: {clientSecret: " + secret + "}",
		"  tokenExchange: {clientSecretRef: " + secret + "}",
		"  tokenExchange: {clientSecretRef: {name: " + secret + "!, key: " + secret + "!}}",
		"  tokenExchange: {tokenUrl: \"https://user:" + secret + "@sts.example.com\", audience: a}",
		"  tokenExchange: {additionalParameters: {client_secret: " + secret + "}}",
		"  tokenExchange: {clientId: [" + secret + "]}",
		"  bearerToken: " + secret,
		"  bearerToken: {token: " + secret + "}",
		"  bearerToken: {tokenSecretRef: [" + secret + "]}",
		"  headerInjection: {headerName: X, value: " + secret + "}",
		"  apiKey: " + secret,
		"  type: \"" + secret + "@x\"",
	} {
		_, report := Parse(Source{Name: "x.yaml", Data: []byte("apiVersion: chatelaine.dev/v1alpha1\nkind: MCPExternalAuthConfig\nmetadata: {name: x}\nspec:\n" + line + "\n")})
		if report.OK() || strings.Contains(report.String(), secret) {
			t.Errorf("%s\n%s", line, report)
		}
	}
	_, report := Parse(Source{Name: "x.yaml", Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {a: " + secret + "}\n")})
	if report.OK() || strings.Contains(report.String(), secret) || !strings.Contains(report.String(), "CHATELAINE_SECRETS_DIR") {
		t.Errorf("%s", report)
	}
}

func TestSecretsThatShareAnEnvironmentVariableAreWarnedAbout(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(intactSet)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "name: github\n            key: client-secret", "name: google-client\n            key: secret", 1)
	set, report := Parse(Source{Name: "x.yaml", Data: []byte(text)})
	if set == nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Message, "GOOGLE_CLIENT_SECRET") {
		t.Errorf("%s", report)
	}
}

func TestOtherKindsOfToolHiveAndKubernetes(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(intactSet)
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"apiVersion: toolhive.stacklok.dev/v1beta1\nkind: MCPServer":          "warning",
		"apiVersion: toolhive.stacklok.dev/v1alpha1\nkind: MCPRemoteProxy":    "warning",
		"apiVersion: toolhive.stacklok.dev/v1beta1\nkind: MCPTelemetryConfig": "warning",
		"apiVersion: toolhive.stacklok.dev/v1beta1\nkind: MCPToolConfig":      "warning",
		"apiVersion: toolhive.stacklok.dev/v1beta1\nkind: MCPAuthzConfig":     "error",
		"apiVersion: toolhive.stacklok.dev/v1beta1\nkind: MCPWebhookConfig":   "error",
		"apiVersion: toolhive.stacklok.dev/v1beta1\nkind: Nonsense":           "error",
		"apiVersion: toolhive.stacklok.dev/v1\nkind: MCPServer":               "error",
		"apiVersion: toolhive.stacklock.dev/v1beta1\nkind: MCPServer":         "error",
		"kind: MCPGroup":                        "error",
		"apiVersion: chatelaine.dev/v1alpha1":   "error",
		"apiVersion: v1\nkind: Secret":          "error",
		"apiVersion: v1\nkind: ConfigMap":       "warning",
		"apiVersion: apps/v1\nkind: Deployment": "warning",
	} {
		_, report := Parse(Source{Name: "x.yaml", Data: []byte(string(data) + "---\n" + header + "\nmetadata: {name: x}\nspec: {a: b}\n")})
		if len(report.Problems) == 0 || string(report.Problems[0].Severity) != want {
			t.Errorf("%s: want one %s\n%s", header, want, report)
		}
	}
}
