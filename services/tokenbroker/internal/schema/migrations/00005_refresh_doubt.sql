-- +goose Up

-- Whether the provider may have ended the grant because of our own repetition of a
-- refresh token, or may have spent the token: then its next invalid_grant says
-- nothing certain of the person. doubtful_attempts counts what followed one attempt
-- in doubt, and no longer says this too.
ALTER TABLE tokenbroker.connections ADD COLUMN doubted boolean NOT NULL DEFAULT false;
UPDATE tokenbroker.connections SET doubted = true, doubtful_attempts = 0
    WHERE attempt_at IS NULL AND doubtful_attempts > 0;
