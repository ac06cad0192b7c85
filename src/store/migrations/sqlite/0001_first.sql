-- Times are microseconds since 1970-01-01T00:00:00Z. Identifiers are UUIDs as text.

CREATE TABLE projects (
    id         TEXT PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Keys are never deleted: a revoked, rotated or expired one still answers a later report.
CREATE TABLE keys (
    id            TEXT PRIMARY KEY NOT NULL,
    project       TEXT NOT NULL REFERENCES projects (id),
    digest        BLOB NOT NULL UNIQUE,
    format        TEXT NOT NULL,
    owner_type    TEXT NOT NULL CHECK (owner_type IN ('user', 'team')),
    owner_id      TEXT NOT NULL,
    description   TEXT NOT NULL,
    is_public     INTEGER NOT NULL CHECK (is_public IN (0, 1)),
    prefix        TEXT NOT NULL,
    last_four     TEXT NOT NULL,
    policy        TEXT,
    notify_emails TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    revoked_at    INTEGER,
    exposed_at    INTEGER,
    replaced_by   TEXT REFERENCES keys (id)
) STRICT;
CREATE INDEX keys_by_owner ON keys (owner_id, owner_type, created_at, id);
CREATE INDEX keys_by_age ON keys (created_at, id);
CREATE TRIGGER keys_are_kept BEFORE DELETE ON keys
BEGIN SELECT RAISE(ABORT, 'keys are never deleted'); END;

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY NOT NULL,
    project     TEXT NOT NULL REFERENCES projects (id),
    digest      BLOB NOT NULL UNIQUE,
    role        TEXT NOT NULL,
    description TEXT NOT NULL,
    prefix      TEXT NOT NULL,
    last_four   TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT;

-- One incident per leaked key; repeated sightings extend it.
CREATE TABLE incidents (
    id             TEXT PRIMARY KEY NOT NULL,
    project        TEXT NOT NULL REFERENCES projects (id),
    key_id         TEXT NOT NULL UNIQUE REFERENCES keys (id),
    status         TEXT NOT NULL,
    opened_at      INTEGER NOT NULL,
    last_seen_at   INTEGER NOT NULL,
    sightings      INTEGER NOT NULL,
    occurrences    INTEGER NOT NULL,
    uses           INTEGER NOT NULL
) STRICT;
CREATE INDEX incidents_by_age ON incidents (opened_at, id);

-- One row per place. Public keys have occurrences but no incident.
CREATE TABLE occurrences (
    id           TEXT PRIMARY KEY NOT NULL,
    fingerprint  BLOB NOT NULL UNIQUE,
    key_id       TEXT NOT NULL REFERENCES keys (id),
    incident_id  TEXT REFERENCES incidents (id),
    source       TEXT NOT NULL,
    url          TEXT,
    repository   TEXT,
    commit_id    TEXT,
    path         TEXT,
    line         INTEGER,
    detected_at  INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    sightings    INTEGER NOT NULL
) STRICT;
CREATE INDEX occurrences_by_key ON occurrences (key_id, detected_at, id);

CREATE TABLE uses_after_exposure (
    id             TEXT PRIMARY KEY NOT NULL,
    key_id         TEXT NOT NULL REFERENCES keys (id),
    at             INTEGER NOT NULL,
    client_address TEXT
) STRICT;
CREATE INDEX uses_after_exposure_by_key ON uses_after_exposure (key_id, at, id);

-- `entry` is the canonical JSON that is hashed; the columns before it are for look-ups and are
-- compared with it by `log verify`.
CREATE TABLE revocation_log (
    seq         INTEGER PRIMARY KEY NOT NULL,
    project     TEXT NOT NULL REFERENCES projects (id),
    at          INTEGER NOT NULL,
    action      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    key_id      TEXT NOT NULL REFERENCES keys (id),
    incident_id TEXT REFERENCES incidents (id),
    prev_hash   TEXT NOT NULL,
    hash        TEXT NOT NULL,
    entry       TEXT NOT NULL
) STRICT;
CREATE INDEX revocation_log_by_key ON revocation_log (key_id, seq);
CREATE TRIGGER revocation_log_is_not_changed BEFORE UPDATE ON revocation_log
BEGIN SELECT RAISE(ABORT, 'the revocation log is append-only'); END;
CREATE TRIGGER revocation_log_is_kept BEFORE DELETE ON revocation_log
BEGIN SELECT RAISE(ABORT, 'the revocation log is append-only'); END;

-- The end of the chain: its row is the lock that serialises appending.
CREATE TABLE log_head (
    id   INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO log_head (id, seq, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- Coordinates of what is to be fetched and scanned, never contents. A waiting item may be claimed
-- once `ready_at` has passed: a lease and a back-off are both a `ready_at` in the future.
CREATE TABLE work_items (
    id            TEXT PRIMARY KEY NOT NULL,
    host          TEXT NOT NULL,
    repository_id TEXT NOT NULL,
    repository    TEXT NOT NULL,
    ref_name      TEXT NOT NULL,
    before_id     TEXT NOT NULL,
    after_id      TEXT NOT NULL,
    source        TEXT NOT NULL,
    priority      INTEGER NOT NULL,
    event_at      INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
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
CREATE INDEX work_items_waiting ON work_items (priority, event_at, id) WHERE state = 'waiting';
CREATE INDEX work_items_leased ON work_items (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX work_items_finished ON work_items (state, finished_at) WHERE state <> 'waiting';

CREATE TABLE sources (
    name               TEXT PRIMARY KEY NOT NULL,
    kind               TEXT NOT NULL,
    cursor             TEXT NOT NULL,
    polled_at          INTEGER,
    succeeded_at       INTEGER,
    next_poll_at       INTEGER,
    newest_event_at    INTEGER,
    error              TEXT,
    polls              INTEGER NOT NULL,
    events             INTEGER NOT NULL,
    items              INTEGER NOT NULL,
    gaps               INTEGER NOT NULL,
    malformed          INTEGER NOT NULL,
    rate_limit         INTEGER,
    rate_remaining     INTEGER,
    rate_resets_at     INTEGER
) STRICT;
