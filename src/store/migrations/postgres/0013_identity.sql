-- What tells this store from any other. A file beside a SQLite database repeats it, so that a store which went away is
-- noticed; copies and backups have it, too.
CREATE TABLE store_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id       TEXT COLLATE "C" NOT NULL
);
INSERT INTO store_identity (only_row, id) VALUES (1, md5(random()::text || random()::text || clock_timestamp()::text));
-- What each daemon looks for, by the version of its rules. One that has not been seen for a while is gone.
CREATE TABLE hunters (
    process TEXT COLLATE "C" PRIMARY KEY,
    ruleset TEXT COLLATE "C" NOT NULL,
    seen_at BIGINT NOT NULL
);
