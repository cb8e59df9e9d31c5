package status

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	maxIncidents = 100
	maxText      = 500
	// question is the key of what is asked for.
	question = "details"
)

// Incident is what somebody reported.
type Incident struct {
	ID       int    `json:"id"`
	Service  string `json:"service"`
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
}

// reportInput is the input of report_incident.
type reportInput struct {
	Service string `json:"service" jsonschema:"the service that is broken"`
}

// Report is the result of report_incident.
type Report struct {
	// Status is recorded or, when the person would not say more, dropped.
	Status   string    `json:"status"`
	Incident *Incident `json:"incident,omitempty"`
}

func severities() []string { return []string{"low", "high", "critical"} }

// report asks the person for severity and summary: in the stateless era its
// result is the question, and the call comes again with the answer; in the
// session era the SDK asks over the stream and calls it again.
func (s *server) report(_ context.Context, req *mcp.CallToolRequest, in reportInput) (*mcp.CallToolResult, any, error) {
	if _, ok := s.probes[in.Service]; !ok {
		return nil, nil, fmt.Errorf("there is no service %q", in.Service)
	}
	answer, ok := req.Params.InputResponses[question].(*mcp.ElicitResult)
	if !ok || answer == nil {
		if !canAsk(req) {
			return nil, nil, errors.New("the person must be asked, and this client cannot (elicitation is not supported)")
		}
		var enum []any
		for _, severity := range severities() {
			enum = append(enum, severity)
		}
		return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{question: &mcp.ElicitParams{
			Message: "What is wrong with " + in.Service + "?",
			RequestedSchema: &jsonschema.Schema{
				Type: "object",
				Properties: map[string]*jsonschema.Schema{
					"severity": {Type: "string", Title: "Severity", Enum: enum},
					"summary":  {Type: "string", Title: "What happens", MaxLength: new(maxText)},
				},
				Required: []string{"severity", "summary"},
			},
		}}}, nil, nil
	}
	if answer.Action != "accept" {
		return nil, Report{Status: "dropped"}, nil
	}
	severity, _ := answer.Content["severity"].(string)
	summary, _ := answer.Content["summary"].(string)
	if !slices.Contains(severities(), severity) || summary == "" || len(summary) > maxText {
		return nil, nil, errors.New("the answer needs a severity (low, high, critical) and a short summary")
	}
	incident := s.record(Incident{Service: in.Service, Severity: severity, Summary: summary})
	return nil, Report{Status: "recorded", Incident: &incident}, nil
}

// canAsk reports whether the client has said that it can show a form.
func canAsk(req *mcp.CallToolRequest) bool {
	caps := req.ClientCapabilities()
	if caps == nil && req.Session.InitializeParams() != nil {
		caps = req.Session.InitializeParams().Capabilities
	}
	return caps != nil && caps.Elicitation != nil
}

func (s *server) record(i Incident) Incident {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.ID = 1
	if n := len(s.incidents); n > 0 {
		i.ID = s.incidents[n-1].ID + 1
	}
	s.incidents = append(s.incidents, i)
	if len(s.incidents) > maxIncidents {
		s.incidents = slices.Delete(s.incidents, 0, len(s.incidents)-maxIncidents)
	}
	return i
}
