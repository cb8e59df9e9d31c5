package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

func TestTypeScriptClientLogsInAndCallsInBothEras(t *testing.T) {
	t.Parallel()
	for mode, version := range map[string]string{"legacy": "2025-11-25", "auto": "2026-07-28"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := newPerson(t)
			s := startScript(t, "mcp-client.mjs")
			s.send(map[string]any{
				"url": shared.stack.MCPURL(), "redirectUri": redirectURI, "mode": mode,
				"calls": []map[string]any{{"name": "repos_whoami"}, {"name": "payroll_whoami"}, {"name": "status_service_status"}},
			})
			var step struct{ Authorize string }
			s.receive(&step)
			walk, err := p.browser(t).Walk(t.Context(), step.Authorize, redirectURI)
			if err != nil {
				t.Fatal(err)
			}
			s.send(map[string]string{"callback": walk.URL.String()})
			var done struct {
				Version   string
				Tools     []string
				Results   []json.RawMessage
				Refreshed bool
				Tokens    []oauth2.Token
			}
			s.receive(&done)
			s.finish()
			if done.Version != version {
				t.Errorf("negotiated %q, want %s", done.Version, version)
			}
			if !slices.Contains(done.Tools, "payroll_my_payslip") {
				t.Errorf("tools: %v", done.Tools)
			}
			for i, want := range []string{p.Login, p.Name, "", p.Login} {
				if got := string(done.Results[i]); !strings.Contains(got, want) || strings.Contains(got, `"isError":true`) {
					t.Errorf("call %d answered %s, want %q", i, got, want)
				}
			}
			if !done.Refreshed {
				t.Error("the client could not refresh its tokens")
			}
		})
	}
}
