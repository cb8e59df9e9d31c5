-- +goose Up

-- Tokens that nobody here uses any more, until their provider has heard of it. A row
-- comes in the transaction that takes them from where they were. They stay sealed as
-- they were there, so that no key is needed to move them: origin_… is what their
-- associated data names.
CREATE TABLE tokenbroker.revocations (
    id             text PRIMARY KEY DEFAULT 'rev_' || replace(gen_random_uuid()::text, '-', ''),
    -- Of nobody any more, perhaps: no reference.
    user_id        text NOT NULL DEFAULT '',
    connection_id  text NOT NULL DEFAULT '',
    -- Of a login that came to nothing, rather than of a connection that was given up.
    staged         boolean NOT NULL,
    provider       text NOT NULL CHECK (provider <> ''),
    realm          text NOT NULL CHECK (realm <> ''),
    subject        text NOT NULL,
    origin_table   text NOT NULL CHECK (origin_table IN ('connections', 'staged_legs')),
    origin_row     text NOT NULL CHECK (origin_row <> ''),
    origin_version bigint NOT NULL,
    key_id         text NOT NULL,
    wrapped_key    bytea NOT NULL,
    sealed_tokens  bytea NOT NULL,
    -- Attempts that began; when the next one may, which is also the end of a lease.
    attempts       integer NOT NULL DEFAULT 0,
    due_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX revocations_due ON tokenbroker.revocations (due_at);
CREATE INDEX revocations_by_key ON tokenbroker.revocations (key_id);
CREATE INDEX revocations_by_age ON tokenbroker.revocations (created_at);
