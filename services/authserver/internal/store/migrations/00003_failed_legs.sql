-- +goose Up

-- The leg that ended a login, for the broker's records: a provider and the number of a broker.v1.SkipReason. Empty
-- where no leg did.
ALTER TABLE authserver.session_ends ADD COLUMN failed_provider text NOT NULL DEFAULT '';
ALTER TABLE authserver.session_ends ADD COLUMN failed_reason smallint NOT NULL DEFAULT 0;
