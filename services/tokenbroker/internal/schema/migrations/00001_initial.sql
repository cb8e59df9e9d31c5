-- +goose Up

-- A person, known by the subject that the primary provider's realm gave them.
CREATE TABLE tokenbroker.users (
    id            text PRIMARY KEY,
    realm         text NOT NULL CHECK (realm <> ''),
    subject_field text NOT NULL CHECK (subject_field <> ''),
    subject       text NOT NULL CHECK (subject <> ''),
    name          text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Unset until a first chain was completed.
    last_login_at timestamptz,
    -- Set while a certain invalid_grant of the primary provider locks the sessions.
    locked_at     timestamptz,
    UNIQUE (realm, subject_field, subject)
);
CREATE INDEX users_by_age ON tokenbroker.users (created_at DESC, id DESC);

CREATE TABLE tokenbroker.sessions (
    id           text PRIMARY KEY,
    state        text NOT NULL CHECK (state IN ('pending', 'active', 'ended')),
    client_id    text NOT NULL CHECK (client_id <> ''),
    client_name  text NOT NULL DEFAULT '',
    user_id      text REFERENCES tokenbroker.users (id) ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    activated_at timestamptz,
    last_used_at timestamptz,
    -- When it ends unless it is activated (pending) or touched (active).
    expires_at   timestamptz NOT NULL,
    -- Absolute end of an active session; touching never moves expires_at past it.
    ends_at      timestamptz,
    ended_at     timestamptz,
    end_reason   text,
    CONSTRAINT sessions_pending CHECK (state <> 'pending' OR (activated_at IS NULL AND ended_at IS NULL)),
    CONSTRAINT sessions_active CHECK (state <> 'active'
        OR (user_id IS NOT NULL AND activated_at IS NOT NULL AND ends_at IS NOT NULL AND expires_at <= ends_at AND ended_at IS NULL)),
    CONSTRAINT sessions_ended CHECK ((state = 'ended') = (ended_at IS NOT NULL) AND (state = 'ended') = (end_reason IS NOT NULL))
);
CREATE INDEX sessions_by_user ON tokenbroker.sessions (user_id, created_at DESC);
CREATE INDEX sessions_expiring ON tokenbroker.sessions (expires_at) WHERE state <> 'ended';
CREATE INDEX sessions_ended_at ON tokenbroker.sessions (ended_at) WHERE state = 'ended';

-- A user's account at one provider. Its lineage of tokens is shared by all sessions.
CREATE TABLE tokenbroker.connections (
    id                text PRIMARY KEY,
    user_id           text NOT NULL REFERENCES tokenbroker.users (id) ON DELETE CASCADE,
    provider          text NOT NULL CHECK (provider <> ''),
    realm             text NOT NULL CHECK (realm <> ''),
    -- Empty for a provider without any source of identity.
    subject           text NOT NULL,
    name              text NOT NULL DEFAULT '',
    scopes            text[] NOT NULL DEFAULT '{}',
    status            text NOT NULL CHECK (status IN ('active', 'reauthentication_required', 'disconnected')),
    -- Version of the tokens: grows with each change of them.
    version           bigint NOT NULL CHECK (version > 0),
    refreshable       boolean NOT NULL,
    -- End of the access token, and when to renew it; unset when the provider did not say.
    expires_at        timestamptz,
    refresh_after     timestamptz,
    tokens_at         timestamptz NOT NULL,
    -- Sealed tokens: key-encryption key's id, wrapped data key, ciphertext.
    key_id            text,
    wrapped_key       bytea,
    sealed_tokens     bytea,
    -- Renewal: who holds the lease until when, the mark of an attempt without a result,
    -- how many attempts followed one in doubt, when the latest forced one was, back-off.
    lease_holder      text,
    lease_until       timestamptz,
    attempt_at        timestamptz,
    doubtful_attempts integer NOT NULL DEFAULT 0 CHECK (doubtful_attempts >= 0),
    forced_at         timestamptz,
    failures          integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    retry_at          timestamptz,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- To the minute.
    last_used_at      timestamptz,
    -- Since when no session links it; see the sweeper.
    unlinked_at       timestamptz,
    CONSTRAINT connections_account UNIQUE (user_id, realm, subject, provider),
    CONSTRAINT connections_sealed_whole CHECK (num_nulls(key_id, wrapped_key, sealed_tokens) IN (0, 3)),
    CONSTRAINT connections_erased CHECK ((status = 'disconnected') = (sealed_tokens IS NULL)),
    CONSTRAINT connections_lease CHECK ((lease_holder IS NULL) = (lease_until IS NULL)),
    CONSTRAINT connections_refresh_after CHECK (refresh_after IS NULL OR expires_at IS NOT NULL)
);
CREATE INDEX connections_by_realm ON tokenbroker.connections (realm, subject);
CREATE INDEX connections_due ON tokenbroker.connections (refresh_after) WHERE status = 'active' AND refreshable;
CREATE INDEX connections_unlinked ON tokenbroker.connections (unlinked_at) WHERE unlinked_at IS NOT NULL;
CREATE INDEX connections_by_key ON tokenbroker.connections (key_id) WHERE key_id IS NOT NULL;

-- What a session has of each provider: a connection, or the decision to go without.
CREATE TABLE tokenbroker.session_links (
    session_id    text NOT NULL REFERENCES tokenbroker.sessions (id) ON DELETE CASCADE,
    provider      text NOT NULL CHECK (provider <> ''),
    connection_id text REFERENCES tokenbroker.connections (id) ON DELETE CASCADE,
    skip_reason   text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (session_id, provider),
    CONSTRAINT session_links_one CHECK ((connection_id IS NULL) <> (skip_reason IS NULL))
);
CREATE INDEX session_links_by_connection ON tokenbroker.session_links (connection_id);

-- Tokens of a leg, sealed, until the session is activated.
CREATE TABLE tokenbroker.staged_legs (
    id            text PRIMARY KEY,
    session_id    text NOT NULL REFERENCES tokenbroker.sessions (id) ON DELETE CASCADE,
    provider      text NOT NULL CHECK (provider <> ''),
    realm         text NOT NULL CHECK (realm <> ''),
    subject       text NOT NULL,
    name          text NOT NULL DEFAULT '',
    scopes        text[] NOT NULL DEFAULT '{}',
    refreshable   boolean NOT NULL,
    expires_at    timestamptz,
    refresh_after timestamptz,
    key_id        text NOT NULL,
    wrapped_key   bytea NOT NULL,
    sealed_tokens bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT staged_legs_one UNIQUE (session_id, provider)
);
CREATE INDEX staged_legs_by_age ON tokenbroker.staged_legs (created_at);
CREATE INDEX staged_legs_by_key ON tokenbroker.staged_legs (key_id);

-- The one counter of event positions: locked last in a transaction, until it commits.
CREATE TABLE tokenbroker.event_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    position bigint NOT NULL CHECK (position >= 0)
);
INSERT INTO tokenbroker.event_head (position) VALUES (0);

CREATE TABLE tokenbroker.events (
    position      bigint PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('session_ended', 'connection_changed')),
    session_id    text,
    connection_id text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT events_subject CHECK ((kind = 'session_ended') = (session_id IS NOT NULL)
        AND (kind = 'connection_changed') = (connection_id IS NOT NULL))
);
CREATE INDEX events_ended_sessions ON tokenbroker.events (created_at) WHERE kind = 'session_ended';

CREATE TABLE tokenbroker.audit (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    action        text NOT NULL CHECK (action <> ''),
    outcome       text NOT NULL CHECK (outcome <> ''),
    user_id       text NOT NULL DEFAULT '',
    session_id    text NOT NULL DEFAULT '',
    client_id     text NOT NULL DEFAULT '',
    backend       text NOT NULL DEFAULT '',
    provider      text NOT NULL DEFAULT '',
    connection_id text NOT NULL DEFAULT '',
    strategy      text NOT NULL DEFAULT '',
    peer          text NOT NULL DEFAULT '',
    trace_id      text NOT NULL DEFAULT ''
);
CREATE INDEX audit_by_user ON tokenbroker.audit (user_id, id DESC) WHERE user_id <> '';
CREATE INDEX audit_by_session ON tokenbroker.audit (session_id, id DESC) WHERE session_id <> '';
CREATE INDEX audit_by_trace ON tokenbroker.audit (trace_id) WHERE trace_id <> '';
CREATE INDEX audit_by_age ON tokenbroker.audit (created_at);

-- Append-only: no record changes, and only records past any sensible retention go.
-- +goose StatementBegin
CREATE FUNCTION tokenbroker.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.created_at < clock_timestamp() - interval '24 hours' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit records are append-only';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_rows BEFORE UPDATE OR DELETE ON tokenbroker.audit
    FOR EACH ROW EXECUTE FUNCTION tokenbroker.audit_is_append_only();
CREATE TRIGGER audit_truncate BEFORE TRUNCATE ON tokenbroker.audit
    FOR EACH STATEMENT EXECUTE FUNCTION tokenbroker.audit_is_append_only();

-- Blobs that the gateway has sealed with its own key.
CREATE TABLE tokenbroker.mcp_blobs (
    key        text PRIMARY KEY,
    sealed     bytea NOT NULL CHECK (octet_length(sealed) BETWEEN 1 AND 65536),
    version    bigint NOT NULL CHECK (version > 0),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX mcp_blobs_expiring ON tokenbroker.mcp_blobs (expires_at);
