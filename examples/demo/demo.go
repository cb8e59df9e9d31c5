package demo

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// redirectURI is where the client says that it listens. Nobody needs to: the
// headless browser stops in front of it.
const redirectURI = "http://127.0.0.1:33418/callback"

// Config says who walks, and where.
type Config struct {
	Stack   *stack.Stack
	Account browse.Account
	Out     io.Writer
	// Broker is a connection as the peer operator.
	Broker grpc.ClientConnInterface
}

// call is one tool call of the demo, with what makes it interesting.
type call struct{ tool, carries string }

// Run walks the journey. An error means that a step did not do what it should.
func Run(ctx context.Context, cfg Config) error {
	d := walk{Config: cfg, audit: brokerv1.NewConnectionServiceClient(cfg.Broker)}
	login, err := d.login(ctx)
	if err != nil {
		return err
	}
	session, err := login.Connect(ctx, journey.ConnectOptions{})
	if err != nil {
		return fmt.Errorf("connect to %s: %w", cfg.Stack.MCPURL(), err)
	}
	defer func() { _ = session.Close() }()
	tools, err := session.ListTools(ctx, nil)
	if err != nil {
		return fmt.Errorf("list tools: %w", err)
	}
	var names []string
	for _, t := range tools.Tools {
		names = append(names, t.Name)
	}
	d.step("Tools of all backends, behind one URL", "protocol version  "+session.InitializeResult().ProtocolVersion, "tools             "+strings.Join(names, ", "))
	for _, c := range []call{
		{"repos_whoami", "the person's own token of octohub, injected"},
		{"payroll_whoami", "a token for payroll, exchanged for the person's token of corp"},
		{"status_whoami", "no credential at all"},
	} {
		traced, traceID := journey.WithTrace(ctx)
		answer, err := journey.Call(traced, session, c.tool, nil)
		if err != nil {
			return err
		}
		who, err := caller(answer)
		if err != nil {
			return fmt.Errorf("%s: %w", c.tool, err)
		}
		backend, _, _ := strings.Cut(c.tool, "_")
		lines := []string{"carries           " + c.carries, pad(backend+" says", 18) + "the caller is " + who, "trace             " + traceID}
		records, err := d.evidence(ctx, login.Claims.SessionID, c.tool, traceID)
		if err != nil {
			return fmt.Errorf("evidence of %s: %w", c.tool, err)
		}
		d.step("Call "+c.tool, append(lines, records...)...)
	}
	fmt.Fprintf(d.Out, "\nDone: one login, three calls, and the client never held a token of octohub or corp.\n")
	return nil
}

type walk struct {
	Config
	audit brokerv1.ConnectionServiceClient
	steps int
}

// step prints a numbered heading and its lines.
func (d *walk) step(title string, lines ...string) {
	d.steps++
	fmt.Fprintf(d.Out, "\n%d. %s\n", d.steps, title)
	for _, line := range lines {
		fmt.Fprintln(d.Out, "   "+line)
	}
}

func (d *walk) login(ctx context.Context) (*journey.Login, error) {
	client := &http.Client{Timeout: 30 * time.Second}
	found, err := journey.Discover(ctx, client, d.Stack.MCPURL())
	if err != nil {
		return nil, err
	}
	d.step("The client asks the MCP URL without a token and is told where to go",
		"MCP URL               "+found.MCPURL,
		"resource metadata     "+found.MetadataURL,
		"authorization server  "+found.Server.Issuer)
	registered, err := found.Register(ctx, client, "Demo client", redirectURI)
	if err != nil {
		return nil, err
	}
	d.step("It registers itself", "client_id  "+registered.ID)

	person, err := browse.New(browse.Options{Account: d.Account})
	if err != nil {
		return nil, err
	}
	login, err := registered.Login(ctx, person)
	if err != nil {
		return nil, err
	}
	for i, p := range parts(login.Steps) {
		if i == 0 {
			d.step("Consent: "+d.Account.Username+" is told once which accounts will be connected", p.lines("opens")...)
			continue
		}
		d.step(fmt.Sprintf("Leg %d: %s", i, provider(d.Stack.Ports(), p.host)), p.lines("is sent to")...)
	}
	c := login.Claims
	d.step("The client redeems its code for one token of ours",
		"iss   "+c.Issuer,
		"sub   "+c.Subject+"  (the person, as the broker knows them)",
		"aud   "+strings.Join(c.Audience, " "),
		"tsid  "+c.SessionID+"  (the session; the broker keeps the providers' tokens under it)",
		"exp   in "+time.Until(time.Unix(c.Expiry, 0)).Round(time.Minute).String())
	return login, nil
}

// evidence returns what the broker recorded when it handed out the credential of
// the tool's backend, and what the gateway logged of this call. The two are of
// one trace when the call itself needed the credential first.
func (d *walk) evidence(ctx context.Context, sessionID, tool, traceID string) ([]string, error) {
	answer, err := d.audit.ListAuditRecords(ctx, &brokerv1.ListAuditRecordsRequest{SessionId: sessionID, Action: "credential.issued"})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, r := range answer.GetRecords() {
		if !strings.HasPrefix(tool, r.GetBackend()+"_") {
			continue
		}
		line := fmt.Sprintf("%s %s backend=%s strategy=%s", r.GetAction(), r.GetOutcome(), r.GetBackend(), r.GetStrategy())
		if r.GetProvider() != "" {
			line += " provider=" + r.GetProvider()
		}
		line += " trace=" + r.GetTraceId()
		if r.GetTraceId() != traceID {
			line += " (that of the list of tools, which needed it first)"
		}
		lines = append(lines, "broker's audit    "+line)
	}
	if len(lines) == 0 {
		return nil, errors.New("the broker has no record of a credential for this backend")
	}
	line, err := findCall(ctx, d.Stack.Log("gateway"), traceID)
	if err != nil {
		return nil, err
	}
	return append(lines, "gateway's log     "+line), nil
}

// findCall waits until the gateway's log has a line about a request of the trace
// and returns its interesting fields.
func findCall(ctx context.Context, path, traceID string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		line, err := scanLog(path, traceID)
		if line != "" || err != nil {
			return line, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s has no line with trace %s", path, traceID)
		case <-tick.C:
		}
	}
}

func scanLog(path, traceID string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var record map[string]any
		if json.Unmarshal(lines.Bytes(), &record) != nil || record["trace_id"] != traceID || record["backend"] == nil {
			continue
		}
		var fields []string
		for _, name := range []string{"msg", "backend", "method", "tool", "outcome", "status"} {
			if v, ok := record[name]; ok {
				fields = append(fields, fmt.Sprintf("%s=%v", name, v))
			}
		}
		return strings.Join(fields, " "), nil
	}
	return "", lines.Err()
}

// caller is whom a backend's answer names.
func caller(answer string) (string, error) {
	var who struct{ Login, Username, Name, Caller string }
	if err := json.Unmarshal([]byte(answer), &who); err != nil {
		return "", fmt.Errorf("the answer %.100q does not say who is calling: %w", answer, err)
	}
	account := cmp.Or(who.Login, who.Username, who.Caller)
	if account == "" {
		return "", fmt.Errorf("the answer %.100q does not say who is calling", answer)
	}
	if who.Name != "" {
		account += " (" + who.Name + ")"
	}
	return account, nil
}
