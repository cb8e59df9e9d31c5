-- +goose Up

-- Logins under way are bounded, and those that never came to have a user are deleted
-- before the others.
CREATE INDEX sessions_pending ON tokenbroker.sessions (expires_at) WHERE state = 'pending';
CREATE INDEX sessions_strangers ON tokenbroker.sessions (ended_at) WHERE state = 'ended' AND user_id IS NULL;
