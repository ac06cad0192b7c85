-- Whoever signs an announcement chooses the identifier, the name and the clone URL of the repository that he tells of.
-- An item is therefore known by all three: `NAME URL IDENTIFIER`, with `-` for the URL of the host's source. SQLite
-- cannot change a constraint, so the table is made anew.
CREATE TABLE work_items_new (
    id            TEXT PRIMARY KEY NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('range', 'references')),
    host          TEXT NOT NULL,
    repository_id TEXT NOT NULL,
    repository    TEXT NOT NULL,
    clone_url     TEXT,
    remote        TEXT NOT NULL DEFAULT '',
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
    -- The place among the items of its host; see `store/queue/turns.rs`.
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
    -- Whose the repository is: of nested groups the outermost.
    owner         TEXT NOT NULL DEFAULT '',
    -- The number of binary digits of how many items of its repository waited when it was added.
    level         INTEGER NOT NULL DEFAULT 0,
    -- 0: ordinary, 1: larger or slower than a medium place allows, 2: its worker died, so it is read alone, 3: larger or
    -- slower than an ordinary place allows.
    lane          INTEGER NOT NULL DEFAULT 0 CHECK (lane IN (0, 1, 2, 3)),
    UNIQUE (host, remote, ref_name, before_id, after_id, part_of)
) STRICT;
-- The program keeps a digest of what is longer. The few of those that are there are known to nobody, and read again if
-- they are named again.
INSERT INTO work_items_new (id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id,
    source, priority, event_at, created_at, state, ready_at, leased_by, tries, last_error, finished_at, truncated,
    bytes, blobs, turn, deaths, gone, origin, generation, parts_left, bytes_left, part_of, owner, level, lane, remote)
SELECT id, kind, host, repository_id, repository, clone_url, ref_name, before_id, after_id,
    source, priority, event_at, created_at, state, ready_at, leased_by, tries, last_error, finished_at, truncated,
    bytes, blobs, turn, deaths, gone, origin, generation, parts_left, bytes_left, part_of, owner, level, lane,
    CASE WHEN length(CAST(repository || ' ' || COALESCE(clone_url, '-') || ' ' || repository_id AS BLOB)) <= 256
    THEN repository || ' ' || COALESCE(clone_url, '-') || ' ' || repository_id
    ELSE 'sha256:' || id END
FROM work_items;
DROP TABLE work_items;
ALTER TABLE work_items_new RENAME TO work_items;
CREATE INDEX work_items_waiting ON work_items (priority, event_at, id) WHERE state = 'waiting';
CREATE INDEX work_items_leased ON work_items (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX work_items_finished ON work_items (state, finished_at) WHERE state <> 'waiting';
CREATE INDEX work_items_ready ON work_items
    (lane, priority, host, turn, level, event_at, id, ready_at, remote, state, leased_by)
    WHERE state = 'waiting' AND leased_by IS NULL;
CREATE INDEX work_items_by_repository ON work_items (host, remote, priority, state) WHERE state = 'waiting';
CREATE INDEX work_items_by_owner ON work_items (owner, host, priority, level, turn, state) WHERE state = 'waiting';
