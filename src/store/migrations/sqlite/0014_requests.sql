-- Requests with an `Idempotency-Key` that made a key, so that one that is sent again makes none. Digests alone: of the
-- access token and the header, and of what was asked for.
CREATE TABLE idempotent_requests (
    request    BLOB PRIMARY KEY NOT NULL,
    content    BLOB NOT NULL,
    key_id     TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotent_requests_by_age ON idempotent_requests (created_at, request);
