package configdoc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../../.."

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what the types say: run go generate ./config in internal", name)
		}
	}
}

func TestEditorsKnowEveryKindAndItsIgnoredFields(t *testing.T) {
	t.Parallel()
	text, err := Schema("..")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Definitions map[string]struct {
			Properties           map[string]map[string]any
			AdditionalProperties bool
			Required             []string
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	for _, kind := range resourceTypes() {
		if _, ok := schema.Definitions[kind.Name()]; !ok {
			t.Errorf("%s is missing", kind.Name())
		}
	}
	spec := schema.Definitions["VirtualMCPServerSpec"]
	if spec.AdditionalProperties || spec.Properties["podTemplateSpec"]["deprecated"] != true || spec.Properties["rateLimiting"] != nil {
		t.Errorf("%+v", spec)
	}
	for name, d := range schema.Definitions {
		for field, p := range d.Properties {
			if doc, _ := p["description"].(string); doc == "" && field != "apiVersion" && field != "kind" {
				t.Errorf("%s.%s is not described", name, field)
			}
		}
	}
}

func TestEveryObjectHasOneTable(t *testing.T) {
	t.Parallel()
	tables, err := Tables("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, heading := range []string{"### VirtualMCPServer", "#### `spec.authServerConfig.upstreamProviders[].oidcConfig`", "#### `spec.tokenExchange`", "#### `spec.headerForward`", "#### `spec.inline`"} {
		if n := strings.Count(tables, heading+"\n"); n != 1 {
			t.Errorf("%s occurs %d times", heading, n)
		}
	}
}
