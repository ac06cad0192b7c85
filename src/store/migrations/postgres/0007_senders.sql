-- Who sent something genuine lately, so that a restart makes no stranger of anybody. Senders and their networks are
-- kept as keyed digests: nothing but comparing them is needed.
CREATE TABLE sender_key (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    secret   BYTEA NOT NULL
);
CREATE TABLE senders (
    sender      BYTEA PRIMARY KEY,
    network     BYTEA NOT NULL,
    -- Hours since 1970.
    proved_hour BIGINT NOT NULL
);
