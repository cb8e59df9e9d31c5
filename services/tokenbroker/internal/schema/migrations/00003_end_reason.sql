-- +goose Up

-- The one end reason that had a name of its own.
UPDATE tokenbroker.sessions SET end_reason = 'EXPIRED' WHERE end_reason = 'expired';
