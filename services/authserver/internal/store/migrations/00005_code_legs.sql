-- +goose Up

-- The broker's ids of the legs that a code is for; none where a version that keeps
-- none has issued it.
ALTER TABLE authserver.authorization_codes ADD COLUMN legs text[] NOT NULL DEFAULT '{}';
