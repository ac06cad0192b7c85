-- Lanes for what is large and for what a worker died of, turns among the repositories of a host, and what came
-- of what. Parts of a range stand apart from ranges that a source named, so that neither stands for the other.
-- SQLite cannot change a constraint, so the table is made anew.
CREATE TABLE work_items_new (
    id            TEXT PRIMARY KEY NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('range', 'references')),
    host          TEXT NOT NULL,
    repository_id TEXT NOT NULL,
    repository    TEXT NOT NULL,
    clone_url     TEXT,
    ref_name      TEXT NOT NULL,
    before_id     TEXT NOT NULL,
    after_id      TEXT NOT NULL,
    source        TEXT NOT NULL,
    priority      INTEGER NOT NULL,
    event_at      INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead', 'shed')),
    ready_at      INTEGER NOT NULL,
    leased_by     TEXT,
    tries         INTEGER NOT NULL,
    last_error    TEXT,
    finished_at   INTEGER,
    truncated     INTEGER NOT NULL CHECK (truncated IN (0, 1)),
    bytes         INTEGER NOT NULL,
    blobs         INTEGER NOT NULL,
    -- 0: ordinary, 1: larger than an ordinary place, 2: its worker died, so it is read alone.
    lane          INTEGER NOT NULL DEFAULT 0 CHECK (lane IN (0, 1, 2)),
    -- How many items of its repository waited when it was added.
    turn          INTEGER NOT NULL DEFAULT 0,
    -- How many workers died while they held it.
    deaths        INTEGER NOT NULL DEFAULT 0,
    -- Done, because the repository or the commit was not there.
    gone          INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
    -- The item that a source named, the steps from it to this one, and what may still come of this one.
    origin        TEXT,
    generation    INTEGER NOT NULL DEFAULT 0,
    parts_left    INTEGER,
    bytes_left    INTEGER,
    -- The origin again when this is a part of its range, else empty.
    part_of       TEXT NOT NULL DEFAULT '',
    UNIQUE (host, repository_id, ref_name, before_id, after_id, part_of)
) STRICT;
INSERT INTO work_items_new (id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id,
    source, priority, event_at, created_at, state, ready_at, leased_by, tries, last_error, finished_at, truncated,
    bytes, blobs)
SELECT id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id,
    source, priority, event_at, created_at, state, ready_at, leased_by, tries, last_error, finished_at, truncated,
    bytes, blobs
FROM work_items;
DROP TABLE work_items;
ALTER TABLE work_items_new RENAME TO work_items;
CREATE INDEX work_items_waiting ON work_items (priority, event_at, id) WHERE state = 'waiting';
CREATE INDEX work_items_leased ON work_items (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX work_items_finished ON work_items (state, finished_at) WHERE state <> 'waiting';
-- What can be claimed, host by host: a host that is left alone is stepped over, however much of it waits.
CREATE INDEX work_items_ready ON work_items (lane, priority, host, turn, event_at, id, ready_at)
    WHERE state = 'waiting' AND leased_by IS NULL;
CREATE INDEX work_items_by_repository ON work_items (host, repository_id) WHERE state = 'waiting';

-- Items that were not added because too much waited already.
ALTER TABLE source_work ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
