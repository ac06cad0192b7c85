-- Who sent something genuine lately, so that a restart makes no stranger of anybody. Senders and their networks are
-- kept as keyed digests: nothing but comparing them is needed.
CREATE TABLE sender_key (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    secret   BLOB NOT NULL
) STRICT;
CREATE TABLE senders (
    sender      BLOB PRIMARY KEY NOT NULL,
    network     BLOB NOT NULL,
    -- Hours since 1970.
    proved_hour INTEGER NOT NULL
) STRICT;
