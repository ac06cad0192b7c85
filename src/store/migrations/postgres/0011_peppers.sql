-- The peppers that digests stand under. The value of a pepper is nowhere in the database: `check_value` is the
-- HMAC-SHA-256 of a fixed text under it, `id` the number that its first 8 bytes are.
CREATE TABLE peppers (
    id          BIGINT PRIMARY KEY,
    check_value BYTEA NOT NULL,
    since       BIGINT NOT NULL
);
-- The pepper that the digest stands under, 0 if there is none. Of rows that are there already it is not known until
-- they are looked up.
ALTER TABLE keys ADD COLUMN pepper BIGINT;
ALTER TABLE tokens ADD COLUMN pepper BIGINT;
CREATE INDEX keys_by_pepper ON keys (pepper);
CREATE INDEX tokens_by_pepper ON tokens (pepper);
