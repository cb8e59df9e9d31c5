package connections

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/login"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	defaultPageSize = 50
	// Pages of sessions and connections are this long by default, for callers that
	// know nothing of pages.
	sessionsPage    = 200
	connectionsPage = 500
)

// People reads users and their sessions.
type People interface {
	ListUsers(ctx context.Context, after store.Cursor, limit int) ([]store.User, error)
	ListSessions(ctx context.Context, userID string, after store.Cursor, limit int) ([]store.Session, error)
	ListAudit(ctx context.Context, f store.AuditFilter) ([]audit.Record, error)
	UserExists(ctx context.Context, userID string) (bool, error)
}

// Store reads and ends connections.
type Store interface {
	ListConnections(ctx context.Context, userID string, after store.ConnectionCursor, limit int) ([]*store.Connection, error)
	Connection(ctx context.Context, id string) (*store.Connection, error)
	Disconnect(ctx context.Context, id string, rec audit.Record) (was *store.Connection, kept audit.Record, err error)
}

// Config makes a Service. All fields are required.
type Config struct {
	People People
	Store  Store
	// Current returns the configuration.
	Current func() *deployment.Snapshot
	Audit   *audit.Recorder
}

// Service implements broker.v1.ConnectionService.
type Service struct {
	brokerv1.UnimplementedConnectionServiceServer
	cfg Config
}

// New returns the service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// ListUsers implements ConnectionService.
func (s *Service) ListUsers(ctx context.Context, req *brokerv1.ListUsersRequest) (*brokerv1.ListUsersResponse, error) {
	cursor, err := parseCursor(userCursor, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := cmp.Or(int(req.GetPageSize()), defaultPageSize)
	users, err := s.cfg.People.ListUsers(ctx, cursor, size+1)
	if err != nil {
		return nil, err
	}
	resp := &brokerv1.ListUsersResponse{}
	if len(users) > size {
		users = users[:size]
		last := users[size-1]
		resp.NextPageToken = formatCursor(userCursor, store.Cursor{CreatedAt: last.CreatedAt, ID: last.ID})
	}
	for i := range users {
		u := &users[i]
		resp.Users = append(resp.Users, &brokerv1.User{
			UserId: u.ID, Realm: u.Realm, Subject: u.Subject, Name: u.Name,
			CreatedAt: timestamp(u.CreatedAt), LastLoginAt: timestamp(u.LastLoginAt),
		})
	}
	return resp, nil
}

// ListSessions implements ConnectionService.
func (s *Service) ListSessions(ctx context.Context, req *brokerv1.ListSessionsRequest) (*brokerv1.ListSessionsResponse, error) {
	cursor, err := parseCursor(sessionCursor, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := cmp.Or(int(req.GetPageSize()), sessionsPage)
	sessions, err := s.cfg.People.ListSessions(ctx, req.GetUserId(), cursor, size+1)
	if err == nil && len(sessions) == 0 {
		err = s.checkUser(ctx, req.GetUserId())
	}
	if err != nil {
		return nil, err
	}
	providers := s.cfg.Current().Providers
	resp := &brokerv1.ListSessionsResponse{}
	if len(sessions) > size {
		sessions = sessions[:size]
		last := &sessions[size-1]
		resp.NextPageToken = formatCursor(sessionCursor, store.Cursor{CreatedAt: last.CreatedAt, ID: last.ID})
	}
	for i := range sessions {
		session := &sessions[i]
		listed := &brokerv1.Session{
			SessionId: session.ID, ClientId: session.ClientID, ClientName: session.ClientName, State: stateOf(session),
			CreatedAt: timestamp(session.CreatedAt), LastUsedAt: timestamp(session.LastUsedAt),
			ExpiresAt: timestamp(session.EndsAt),
		}
		if session.EndsAt.IsZero() {
			listed.ExpiresAt = timestamp(session.ExpiresAt)
		}
		if listed.GetState() != brokerv1.SessionState_SESSION_STATE_ENDED {
			listed.Links = login.Links(providers, session)
		}
		resp.Sessions = append(resp.Sessions, listed)
	}
	return resp, nil
}

// checkUser tells a user who has nothing from one who does not exist: an empty list
// must not answer a misspelled id.
func (s *Service) checkUser(ctx context.Context, id string) error {
	known, err := s.cfg.People.UserExists(ctx, id)
	if err == nil && !known {
		err = fault.New(fault.NotFound, "there is no such user").WithReason(reason.UserNotFound)
	}
	return err
}

// ListConnections implements ConnectionService.
func (s *Service) ListConnections(ctx context.Context, req *brokerv1.ListConnectionsRequest) (*brokerv1.ListConnectionsResponse, error) {
	cursor, err := parseConnectionCursor(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := cmp.Or(int(req.GetPageSize()), connectionsPage)
	list, err := s.cfg.Store.ListConnections(ctx, req.GetUserId(), cursor, size+1)
	if err == nil && len(list) == 0 {
		err = s.checkUser(ctx, req.GetUserId())
	}
	if err != nil {
		return nil, err
	}
	resp := &brokerv1.ListConnectionsResponse{}
	if len(list) > size {
		list = list[:size]
		last := list[size-1]
		resp.NextPageToken = formatConnectionCursor(store.ConnectionCursor{
			Provider: last.Provider, Cursor: store.Cursor{CreatedAt: last.CreatedAt, ID: last.ID},
		})
	}
	for _, c := range list {
		resp.Connections = append(resp.Connections, connection(c))
	}
	return resp, nil
}

// GetConnection implements ConnectionService.
func (s *Service) GetConnection(ctx context.Context, req *brokerv1.GetConnectionRequest) (*brokerv1.GetConnectionResponse, error) {
	c, err := s.cfg.Store.Connection(ctx, req.GetConnectionId())
	if err != nil {
		return nil, err
	}
	return &brokerv1.GetConnectionResponse{Connection: connection(c)}, nil
}

// Disconnect implements ConnectionService. The tokens are gone and every watcher is
// told when it returns; the provider is told in the background.
func (s *Service) Disconnect(ctx context.Context, req *brokerv1.DisconnectRequest) (*brokerv1.DisconnectResponse, error) {
	was, rec, err := s.cfg.Store.Disconnect(ctx, req.GetConnectionId(), audit.Record{
		Action: audit.ConnectionDisconnected, Outcome: audit.Success, ConnectionID: req.GetConnectionId(),
	}.Complete(ctx))
	if err != nil {
		return nil, err
	}
	if was != nil {
		s.cfg.Audit.Log(ctx, rec)
	}
	return &brokerv1.DisconnectResponse{}, nil
}

// ListAuditRecords implements ConnectionService.
func (s *Service) ListAuditRecords(ctx context.Context, req *brokerv1.ListAuditRecordsRequest) (*brokerv1.ListAuditRecordsResponse, error) {
	before, err := parseRecordCursor(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := cmp.Or(int(req.GetPageSize()), defaultPageSize)
	records, err := s.cfg.People.ListAudit(ctx, store.AuditFilter{
		UserID: req.GetUserId(), SessionID: req.GetSessionId(), TraceID: req.GetTraceId(), Action: req.GetAction(),
		Before: before, Limit: size + 1,
	})
	if err != nil {
		return nil, err
	}
	resp := &brokerv1.ListAuditRecordsResponse{}
	if len(records) > size {
		records = records[:size]
		resp.NextPageToken = formatRecordCursor(records[size-1].ID)
	}
	for i := range records {
		r := &records[i]
		resp.Records = append(resp.Records, &brokerv1.AuditRecord{
			RecordId: r.ID, Time: timestamp(r.Time), Action: string(r.Action), Outcome: r.Outcome, UserId: r.UserID,
			SessionId: r.SessionID, ClientId: r.ClientID, Backend: r.Backend, Provider: r.Provider,
			ConnectionId: r.ConnectionID, Strategy: r.Strategy, Peer: r.Peer, TraceId: r.TraceID,
		})
	}
	return resp, nil
}

func stateOf(s *store.Session) brokerv1.SessionState {
	switch {
	case s.Over(): // the sweeper will write it down
		return brokerv1.SessionState_SESSION_STATE_ENDED
	case s.State == store.SessionActive:
		return brokerv1.SessionState_SESSION_STATE_ACTIVE
	}
	return brokerv1.SessionState_SESSION_STATE_PENDING
}

func connection(c *store.Connection) *brokerv1.Connection {
	shown := &brokerv1.Connection{
		ConnectionId: c.ID, UserId: c.UserID, Provider: c.Provider, Realm: c.Realm, Subject: c.Subject, Name: c.Name,
		Scopes: c.Scopes, ExpiresAt: timestamp(c.ExpiresAt), Refreshable: c.Refreshable,
		CreatedAt: timestamp(c.CreatedAt), UpdatedAt: timestamp(c.UpdatedAt), LastUsedAt: timestamp(c.LastUsedAt),
		Version: c.Version,
	}
	switch {
	case c.Status == store.ConnectionDisconnected:
		shown.State = brokerv1.ConnectionState_CONNECTION_STATE_DISCONNECTED
	case c.Status == store.ConnectionReauthenticate, c.Clock.Expired && !c.Refreshable:
		shown.State = brokerv1.ConnectionState_CONNECTION_STATE_REAUTHENTICATION_REQUIRED
	default:
		shown.State = brokerv1.ConnectionState_CONNECTION_STATE_ACTIVE
	}
	return shown
}

// timestamp maps Go's zero time to an unset field.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
