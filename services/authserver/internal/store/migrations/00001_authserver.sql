-- +goose Up

-- Registered OAuth clients (RFC 7591).
CREATE TABLE authserver.clients (
    id            text PRIMARY KEY,
    name          text NOT NULL,
    uri           text NOT NULL DEFAULT '',
    auth_method   text NOT NULL CHECK (auth_method IN ('none', 'client_secret_basic', 'client_secret_post')),
    -- SHA-256 of a random 256-bit secret; null for public clients.
    secret_hash   bytea,
    redirect_uris text[] NOT NULL,
    grant_types   text[] NOT NULL,
    scopes        text[] NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- When tokens were last issued to it.
    used_at       timestamptz,
    CHECK ((auth_method = 'none') = (secret_hash IS NULL))
);

-- Authorization requests on their way through the chain: ten minutes at most.
CREATE TABLE authserver.authorization_requests (
    id           text PRIMARY KEY,
    client_id    text NOT NULL REFERENCES authserver.clients ON DELETE CASCADE,
    -- SHA-256 of the browser's cookie.
    browser_hash bytea NOT NULL,
    phase        text NOT NULL CHECK (phase IN ('consent', 'legs', 'confirm')),
    -- The broker's pending session; empty until the person has approved.
    session_id   text NOT NULL DEFAULT '',
    user_id      text NOT NULL DEFAULT '',
    -- What the client asked for, and what the chain has.
    params       jsonb NOT NULL,
    progress     jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);
CREATE INDEX ON authserver.authorization_requests (expires_at);
CREATE INDEX ON authserver.authorization_requests (client_id);

-- The leg that is under way; a request has one at a time.
CREATE TABLE authserver.legs (
    -- SHA-256 of the state parameter.
    state_hash   bytea PRIMARY KEY,
    request_id   text NOT NULL UNIQUE REFERENCES authserver.authorization_requests ON DELETE CASCADE,
    provider     text NOT NULL,
    redirect_uri text NOT NULL,
    -- PKCE verifier and nonce, sealed.
    sealed       bytea NOT NULL,
    expires_at   timestamptz NOT NULL
);

-- What a login has led to. Pending until its code is redeemed.
CREATE TABLE authserver.grants (
    id           text PRIMARY KEY,
    session_id   text NOT NULL UNIQUE,
    user_id      text NOT NULL,
    client_id    text NOT NULL REFERENCES authserver.clients,
    status       text NOT NULL CHECK (status IN ('pending', 'active', 'ended')),
    scopes       text[] NOT NULL,
    resources    text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Absolute end of the broker's session; no token outlives it.
    expires_at   timestamptz NOT NULL,
    -- When the last token issued from it expires.
    tokens_until timestamptz NOT NULL,
    ended_at     timestamptz
);
CREATE INDEX ON authserver.grants (client_id);
CREATE INDEX ON authserver.grants (tokens_until) WHERE status <> 'ended';
CREATE INDEX ON authserver.grants (ended_at) WHERE status = 'ended';

-- Authorization codes. A used one stays as long as its grant, so that a replay is seen.
CREATE TABLE authserver.authorization_codes (
    -- SHA-256 of the code's signature.
    signature_hash bytea PRIMARY KEY,
    grant_id       text NOT NULL UNIQUE REFERENCES authserver.grants ON DELETE CASCADE,
    -- As the client sent it; empty when it sent none.
    redirect_uri   text NOT NULL,
    code_challenge text NOT NULL,
    requested_at   timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz
);

-- Refresh tokens. Used ones stay, so that reuse is seen.
CREATE TABLE authserver.refresh_tokens (
    -- SHA-256 of the token's signature.
    signature_hash bytea PRIMARY KEY,
    grant_id       text NOT NULL REFERENCES authserver.grants ON DELETE CASCADE,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz,
    -- The token that replaced this one, and the answer that carried it, sealed under a key that only the holder of
    -- this token can derive. Erased once the successor was used.
    successor_hash bytea,
    sealed_answer  bytea
);
CREATE INDEX ON authserver.refresh_tokens (grant_id);
CREATE INDEX ON authserver.refresh_tokens (successor_hash) WHERE sealed_answer IS NOT NULL;
CREATE INDEX ON authserver.refresh_tokens (used_at) WHERE sealed_answer IS NOT NULL;

-- Sessions that the broker must still be told to end.
CREATE TABLE authserver.session_ends (
    session_id      text PRIMARY KEY,
    reason          smallint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON authserver.session_ends (next_attempt_at);

-- Public halves of the signing keys, so that every replica publishes the same set.
CREATE TABLE authserver.signing_keys (
    kid          text PRIMARY KEY,
    jwk          jsonb NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    -- Until when tokens signed with it may be alive.
    keep_until   timestamptz NOT NULL
);
