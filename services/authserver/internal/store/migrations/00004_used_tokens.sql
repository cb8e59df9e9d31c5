-- +goose Up

-- Used tokens that are over, for the sweep.
CREATE INDEX ON authserver.refresh_tokens (expires_at) WHERE used_at IS NOT NULL;
