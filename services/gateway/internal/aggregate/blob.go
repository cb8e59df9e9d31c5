package aggregate

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	brokerv1 "chatelaine.dev/proto/broker/v1"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
)

// Blobs keeps what a session id cannot carry. It is the broker's
// McpSessionService; what it keeps is sealed before it gets there.
type Blobs interface {
	GetBlob(ctx context.Context, in *brokerv1.GetBlobRequest, opts ...grpc.CallOption) (*brokerv1.GetBlobResponse, error)
	PutBlob(ctx context.Context, in *brokerv1.PutBlobRequest, opts ...grpc.CallOption) (*brokerv1.PutBlobResponse, error)
}

const (
	// storeTimeout bounds one call of the store.
	storeTimeout = 2 * time.Second
	// maxBlob is the store's bound, in bytes.
	maxBlob = 64 << 10

	purposeBlob   = "mcp-session-blob"
	purposeCursor = "mcp-list-cursor"
)

// blob is what is stored of a session.
type blob struct {
	// Ended: the client ended the session. It is never re-opened.
	Ended bool       `json:"ended,omitempty"`
	Peers []blobPeer `json:"peers,omitempty"`
}

type blobPeer struct {
	Backend  string             `json:"b"`
	ID       string             `json:"i,omitempty"`
	Origin   string             `json:"o,omitempty"`
	Version  string             `json:"v"`
	Features mcpclient.Features `json:"f"`
}

// store reads and writes the blobs of sessions.
type store struct {
	blobs Blobs
	ring  *keyring.Ring
	// origins are those of the backends, by name; see sessionid.OriginOf.
	origins map[string]string
}

// elsewhere reports whether a session is one with what had the backend's name at
// another origin. To the session, the backend has not joined.
func (t *store) elsewhere(backend string, p *mcpclient.Peer) bool {
	origin, known := t.origins[backend]
	return known && p.Origin != "" && p.Origin != origin
}

func blobKey(s *session) string { return "mcp-" + s.sealed.KeyText() }

// load returns the stored state of a session; one of revision 0 when nothing is
// stored. Errors are *fault.Error.
func (t *store) load(ctx context.Context, s *session) (*sessionState, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	key := blobKey(s)
	resp, err := t.blobs.GetBlob(ctx, &brokerv1.GetBlobRequest{Key: key})
	if err != nil {
		if fault.KindOf(fault.FromGRPC(err)) == fault.NotFound {
			return &sessionState{}, nil
		}
		return nil, fault.FromGRPC(err)
	}
	plain, err := t.ring.Open(resp.GetSealed(), bound(purposeBlob, s.owner, key))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "what is stored of the session cannot be opened")
	}
	var b blob
	if err := json.Unmarshal(plain, &b); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "what is stored of the session cannot be read")
	}
	state := &sessionState{revision: resp.GetVersion(), ended: b.Ended, joined: make(map[string]*mcpclient.Peer, len(b.Peers))}
	for _, p := range b.Peers {
		peer := &mcpclient.Peer{SessionID: p.ID, Origin: p.Origin, Version: p.Version, Features: p.Features}
		if !t.elsewhere(p.Backend, peer) {
			state.joined[p.Backend] = peer
		}
	}
	return state, nil
}

// save stores a state on top of the revision that it has, and returns it with
// its new revision. The error is a Conflict when another replica was faster.
func (t *store) save(ctx context.Context, s *session, state *sessionState) (*sessionState, error) {
	b := blob{Ended: state.ended}
	for name, p := range state.joined {
		b.Peers = append(b.Peers, blobPeer{Backend: name, ID: p.SessionID, Origin: p.Origin, Version: p.Version, Features: p.Features})
	}
	plain, err := json.Marshal(&b)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the session cannot be stored")
	}
	if len(plain) > maxBlob-keyring.Overhead {
		return nil, fault.New(fault.Exhausted, "the session has too many backends to be stored")
	}
	key := blobKey(s)
	sealed, err := t.ring.Seal(nil, plain, bound(purposeBlob, s.owner, key))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	resp, err := t.blobs.PutBlob(ctx, &brokerv1.PutBlobRequest{
		Key: key, Sealed: sealed, ExpectedVersion: state.revision,
		TimeToLive: durationpb.New(time.Until(s.sealed.CreatedAt.Add(maxSessionAge)) + time.Hour),
	})
	if err != nil {
		return nil, fault.FromGRPC(err)
	}
	return &sessionState{revision: resp.GetVersion(), ended: state.ended, joined: state.joined}, nil
}

// bound is the associated data of a value that is sealed for a purpose and a
// person. It is unambiguous because each part has its length in front.
func bound(purpose, owner, subject string) []byte {
	b := make([]byte, 0, len(purpose)+len(owner)+len(subject)+12)
	for _, part := range [...]string{purpose, owner, subject} {
		b = strconv.AppendInt(b, int64(len(part)), 10)
		b = append(append(b, ':'), part...)
	}
	return b
}
