-- +goose Up

-- Sessions that go on while what was handed out for them is void. They have a
-- column of their own, since a broker of the version before, which may still be
-- running, takes session_id for the session's end.
ALTER TABLE tokenbroker.events
    ADD COLUMN changed_session_id text,
    DROP CONSTRAINT events_kind_check,
    DROP CONSTRAINT events_subject,
    ADD CONSTRAINT events_kind CHECK (kind IN ('session_ended', 'session_changed', 'connection_changed')),
    ADD CONSTRAINT events_subject CHECK ((kind = 'session_ended') = (session_id IS NOT NULL)
        AND (kind = 'session_changed') = (changed_session_id IS NOT NULL)
        AND (kind = 'connection_changed') = (connection_id IS NOT NULL));
