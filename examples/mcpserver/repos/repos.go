package repos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/mcpserver"
)

// maxAnswer bounds an answer of octohub, in bytes.
const maxAnswer = 1 << 20

// listURI is the resource that lists the person's repositories.
const listURI = "octohub://repositories"

// Config is what the server is made of.
type Config struct {
	// OctohubURL is the code host, e.g. http://localhost:5557.
	OctohubURL string
	// Client sends the requests to it; it must have a deadline.
	Client     *http.Client
	Faults     *faults.Backend
	Propagator propagation.TextMapPropagator
	Log        *slog.Logger
}

// server holds what the tools need.
type server struct {
	base   *url.URL
	client *http.Client
}

// New returns the server's HTTP handler.
func New(cfg Config) (http.Handler, error) {
	base, err := url.Parse(cfg.OctohubURL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("repos: %q is no URL of a code host", cfg.OctohubURL)
	}
	s := &server{base: base, client: cfg.Client}
	m := mcpserver.New("repos", "Repositories at octohub", "Lists the repositories of the person who calls.")
	readOnly := &mcp.ToolAnnotations{ReadOnlyHint: true}
	mcp.AddTool(m, &mcp.Tool{
		Name: "whoami", Title: "Who am I at octohub?", Annotations: readOnly,
		Description: "The octohub account that this call is made with.",
	}, s.whoami)
	mcp.AddTool(m, &mcp.Tool{
		Name: "list_repositories", Title: "My repositories", Annotations: readOnly,
		Description: "The repositories that the caller owns at octohub, private ones too where the token allows it.",
	}, s.list)
	m.AddResource(&mcp.Resource{
		URI: listURI, Name: "repositories", Title: "My repositories", MIMEType: "application/json",
		Description: "The caller's repositories as JSON.",
	}, s.readList)
	m.AddPrompt(&mcp.Prompt{
		Name: "review_repository", Title: "Review a repository",
		Description: "Asks for a review of one of the caller's repositories.",
		Arguments:   []*mcp.PromptArgument{{Name: "repository", Description: "The repository's name.", Required: true}},
	}, s.reviewPrompt)
	return mcpserver.Handler(mcpserver.Config{
		Name: "repos", Server: m, Authenticate: s.authenticate, Faults: cfg.Faults, Propagator: cfg.Propagator, Log: cfg.Log,
	}), nil
}

// User is an account at octohub.
type User struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Name  string `json:"name"`
}

// Repository is a repository at octohub.
type Repository struct {
	FullName    string `json:"full_name"`
	Description string `json:"description"`
	Language    string `json:"language"`
	Private     bool   `json:"private"`
}

// Repositories is the result of list_repositories.
type Repositories struct {
	Owner        string       `json:"owner"`
	Repositories []Repository `json:"repositories"`
}

// errRejected means that octohub does not accept the token.
var errRejected = errors.New("repos: octohub rejects the token")

// authenticate asks octohub whose token the request bears.
func (s *server) authenticate(r *http.Request) (*auth.TokenInfo, error) {
	if _, ok := mcpserver.Bearer(r.Header); !ok {
		return nil, mcpserver.NoToken()
	}
	var u User
	switch err := s.get(r.Context(), r.Header, "/user", nil, &u); {
	case errors.Is(err, errRejected):
		return nil, mcpserver.InvalidToken("octohub does not accept the token")
	case err != nil:
		return nil, err
	}
	return &auth.TokenInfo{UserID: strconv.FormatInt(u.ID, 10)}, nil
}

// get asks octohub in the name of whoever sent header.
func (s *server) get(ctx context.Context, header http.Header, path string, query url.Values, out any) error {
	token, ok := mcpserver.Bearer(header)
	if !ok {
		return errRejected
	}
	target := s.base.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return fmt.Errorf("repos: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("repos: ask octohub: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return errRejected
	default:
		return fmt.Errorf("repos: octohub answers %d", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("repos: read octohub's answer: %w", err)
	}
	return nil
}

func (s *server) whoami(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, User, error) {
	var u User
	err := s.get(ctx, req.Extra.Header, "/user", nil, &u)
	return nil, u, err
}

// listInput is the input of list_repositories.
type listInput struct {
	Language string `json:"language,omitempty" jsonschema:"only repositories in this language"`
}

func (s *server) list(ctx context.Context, req *mcp.CallToolRequest, in listInput) (*mcp.CallToolResult, Repositories, error) {
	out, err := s.repositories(ctx, req.Extra.Header, in.Language)
	return nil, out, err
}

func (s *server) repositories(ctx context.Context, header http.Header, language string) (Repositories, error) {
	var u User
	if err := s.get(ctx, header, "/user", nil, &u); err != nil {
		return Repositories{}, err
	}
	var all []Repository
	if err := s.get(ctx, header, "/user/repos", url.Values{"per_page": {"100"}}, &all); err != nil {
		return Repositories{}, err
	}
	out := Repositories{Owner: u.Login, Repositories: []Repository{}}
	for _, r := range all {
		if language == "" || strings.EqualFold(r.Language, language) {
			out.Repositories = append(out.Repositories, r)
		}
	}
	return out, nil
}

func (s *server) readList(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	list, err := s.repositories(ctx, req.Extra.Header, "")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("repos: %w", err)
	}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: "application/json", Text: string(text)}}}, nil
}

func (s *server) reviewPrompt(_ context.Context, req *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{
		Text: "Review my repository " + req.Params.Arguments["repository"] + " at octohub: what is it for, and what would you improve first?",
	}}}}, nil
}
