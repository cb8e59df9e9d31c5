package credential

import (
	"context"

	"chatelaine.dev/services/tokenbroker/internal/refresh"
)

// Remembered reports how many sessions and tokens are in memory.
func (m *Memory) Remembered() (sessions, tokens int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.sessions), len(m.tokens)
}

// Heard returns the position of the newest event that was heard.
func (m *Memory) Heard() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.head
}

// MemorySession opens a session through the memory alone.
var MemorySession = (*Memory).session

// MemoryToken opens a token through the memory alone.
func MemoryToken(ctx context.Context, m *Memory, session, provider, realm string) (refresh.Token, int64, error) {
	return m.token(ctx, tokenKey{session, provider, realm})
}
