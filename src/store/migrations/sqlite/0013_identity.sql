-- What tells this store from any other. A file beside a SQLite database repeats it, so that a store which went away is
-- noticed; copies and backups have it, too.
CREATE TABLE store_identity (
    only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
    id       TEXT NOT NULL
) STRICT;
INSERT INTO store_identity (only_row, id) VALUES (1, lower(hex(randomblob(16))));
-- What each daemon looks for, by the version of its rules. One that has not been seen for a while is gone.
CREATE TABLE hunters (
    process TEXT PRIMARY KEY NOT NULL,
    ruleset TEXT NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;
