-- +goose Up

-- IF [NOT] EXISTS: databases of development snapshots have some of this already.

-- Counts the changes, so that nobody writes over one that they have not seen.
ALTER TABLE authserver.authorization_requests ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 0;

-- A leg ends with its request.
ALTER TABLE authserver.legs DROP COLUMN IF EXISTS expires_at;
-- Null until the state comes back. Then: when a browser that brings it again may walk the leg anew, since nothing
-- came of the first time. The state itself is good once.
ALTER TABLE authserver.legs ADD COLUMN retry_at timestamptz;

-- Under a secret of the configuration: who can only write here cannot add a key. The empty one authenticates nothing.
ALTER TABLE authserver.signing_keys ADD COLUMN IF NOT EXISTS mac bytea NOT NULL DEFAULT '';
ALTER TABLE authserver.signing_keys ALTER COLUMN mac DROP DEFAULT;

-- Used refresh tokens stay until they expire.
CREATE INDEX IF NOT EXISTS refresh_tokens_expires_at_idx ON authserver.refresh_tokens (expires_at) WHERE used_at IS NOT NULL;
-- How often a grant's refresh tokens were rotated: that has a limit.
ALTER TABLE authserver.grants ADD COLUMN rotations bigint NOT NULL DEFAULT 0;

-- When the client last began a login, whatever came of it. Of clients from before this column nothing is known.
ALTER TABLE authserver.clients ADD COLUMN tried_at timestamptz;
UPDATE authserver.clients SET tried_at = coalesce(used_at, created_at);
