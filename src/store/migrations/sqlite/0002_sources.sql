-- Announced references beside pushed ranges, remotes of any address, and items that were shed. SQLite cannot
-- change a check, so the table is made anew.
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
    UNIQUE (host, repository_id, ref_name, before_id, after_id)
) STRICT;
INSERT INTO work_items_new (id, kind, host, repository_id, repository, ref_name, before_id, after_id, source,
    priority, event_at, created_at, state, ready_at, leased_by, tries, last_error, finished_at, truncated, bytes, blobs)
SELECT id, 'range', host, repository_id, repository, ref_name, before_id, after_id, source,
    priority, event_at, created_at, state, ready_at, leased_by, tries, last_error, finished_at, truncated, bytes, blobs
FROM work_items;
DROP TABLE work_items;
ALTER TABLE work_items_new RENAME TO work_items;
CREATE INDEX work_items_waiting ON work_items (priority, event_at, id) WHERE state = 'waiting';
CREATE INDEX work_items_leased ON work_items (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX work_items_finished ON work_items (state, finished_at) WHERE state <> 'waiting';

-- What a source saw besides pushes, what it made up for, and in words what it could not see.
ALTER TABLE sources ADD COLUMN texts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN unknown INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN repaired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN unseen TEXT;

-- What workers did with the items of a source. Apart from `sources`, which its poller writes.
CREATE TABLE source_work (
    source       TEXT PRIMARY KEY NOT NULL,
    scanned      INTEGER NOT NULL,
    blobs        INTEGER NOT NULL,
    known_blobs  INTEGER NOT NULL,
    truncated    INTEGER NOT NULL,
    gone         INTEGER NOT NULL,
    shed         INTEGER NOT NULL,
    lag          INTEGER,
    scanned_at   INTEGER
) STRICT;

-- Blobs that were scanned with a set of formats and hold no candidate.
CREATE TABLE scanned_blobs (
    ruleset    TEXT NOT NULL,
    blob       BLOB NOT NULL,
    scanned_at INTEGER NOT NULL,
    PRIMARY KEY (ruleset, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX scanned_blobs_by_age ON scanned_blobs (scanned_at);

-- Deliveries of webhooks that changed something, so that a repeated one does not.
CREATE TABLE webhook_deliveries (
    source      TEXT NOT NULL,
    delivery    TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (source, delivery)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (received_at);
