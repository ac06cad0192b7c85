-- Times are microseconds since 1970-01-01T00:00:00Z. Identifiers are UUIDs as text, compared
-- bytewise so that their order is the same on every server.

CREATE TABLE projects (
    id         TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    created_at BIGINT NOT NULL
);

-- Keys are never deleted: a revoked, rotated or expired one still answers a later report.
CREATE TABLE keys (
    id            TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    project       TEXT COLLATE "C" NOT NULL REFERENCES projects (id),
    digest        BYTEA NOT NULL UNIQUE,
    format        TEXT NOT NULL,
    owner_type    TEXT NOT NULL CHECK (owner_type IN ('user', 'team')),
    owner_id      TEXT COLLATE "C" NOT NULL,
    description   TEXT NOT NULL,
    is_public     BOOLEAN NOT NULL,
    prefix        TEXT NOT NULL,
    last_four     TEXT NOT NULL,
    policy        TEXT,
    notify_emails TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT,
    revoked_at    BIGINT,
    exposed_at    BIGINT,
    replaced_by   TEXT COLLATE "C" REFERENCES keys (id)
);
CREATE INDEX keys_by_owner ON keys (owner_id, owner_type, created_at, id);
CREATE INDEX keys_by_age ON keys (created_at, id);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;
CREATE TRIGGER keys_are_kept BEFORE DELETE OR TRUNCATE ON keys
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('keys are never deleted');

CREATE TABLE tokens (
    id          TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    project     TEXT COLLATE "C" NOT NULL REFERENCES projects (id),
    digest      BYTEA NOT NULL UNIQUE,
    role        TEXT NOT NULL,
    description TEXT NOT NULL,
    prefix      TEXT NOT NULL,
    last_four   TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    revoked_at  BIGINT
);

-- One incident per leaked key; repeated sightings extend it.
CREATE TABLE incidents (
    id             TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    project        TEXT COLLATE "C" NOT NULL REFERENCES projects (id),
    key_id         TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES keys (id),
    status         TEXT NOT NULL,
    opened_at      BIGINT NOT NULL,
    last_seen_at   BIGINT NOT NULL,
    sightings      BIGINT NOT NULL,
    occurrences    BIGINT NOT NULL,
    uses           BIGINT NOT NULL
);
CREATE INDEX incidents_by_age ON incidents (opened_at, id);

-- One row per place. Public keys have occurrences but no incident.
CREATE TABLE occurrences (
    id           TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    fingerprint  BYTEA NOT NULL UNIQUE,
    key_id       TEXT COLLATE "C" NOT NULL REFERENCES keys (id),
    incident_id  TEXT COLLATE "C" REFERENCES incidents (id),
    source       TEXT NOT NULL,
    url          TEXT,
    repository   TEXT,
    commit_id    TEXT,
    path         TEXT,
    line         BIGINT,
    detected_at  BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    sightings    BIGINT NOT NULL
);
CREATE INDEX occurrences_by_key ON occurrences (key_id, detected_at, id);

CREATE TABLE uses_after_exposure (
    id             TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    key_id         TEXT COLLATE "C" NOT NULL REFERENCES keys (id),
    at             BIGINT NOT NULL,
    client_address TEXT
);
CREATE INDEX uses_after_exposure_by_key ON uses_after_exposure (key_id, at, id);

-- `entry` is the canonical JSON that is hashed; the columns before it are for look-ups and are
-- compared with it by `log verify`.
CREATE TABLE revocation_log (
    seq         BIGINT PRIMARY KEY NOT NULL,
    project     TEXT COLLATE "C" NOT NULL REFERENCES projects (id),
    at          BIGINT NOT NULL,
    action      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    key_id      TEXT COLLATE "C" NOT NULL REFERENCES keys (id),
    incident_id TEXT COLLATE "C" REFERENCES incidents (id),
    prev_hash   TEXT NOT NULL,
    hash        TEXT NOT NULL,
    entry       TEXT NOT NULL
);
CREATE INDEX revocation_log_by_key ON revocation_log (key_id, seq);
CREATE TRIGGER revocation_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON revocation_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the revocation log is append-only');

-- The end of the chain: its row is the lock that serialises appending.
CREATE TABLE log_head (
    id   BIGINT PRIMARY KEY NOT NULL CHECK (id = 1),
    seq  BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO log_head (id, seq, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- Coordinates of what is to be fetched and scanned, never contents. A waiting item may be claimed
-- once `ready_at` has passed: a lease and a back-off are both a `ready_at` in the future.
CREATE TABLE work_items (
    id            TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    host          TEXT COLLATE "C" NOT NULL,
    repository_id TEXT COLLATE "C" NOT NULL,
    repository    TEXT NOT NULL,
    ref_name      TEXT COLLATE "C" NOT NULL,
    before_id     TEXT COLLATE "C" NOT NULL,
    after_id      TEXT COLLATE "C" NOT NULL,
    source        TEXT NOT NULL,
    priority      BIGINT NOT NULL,
    event_at      BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
    ready_at      BIGINT NOT NULL,
    leased_by     TEXT,
    tries         BIGINT NOT NULL,
    last_error    TEXT,
    finished_at   BIGINT,
    truncated     BOOLEAN NOT NULL,
    bytes         BIGINT NOT NULL,
    blobs         BIGINT NOT NULL,
    UNIQUE (host, repository_id, ref_name, before_id, after_id)
);
CREATE INDEX work_items_waiting ON work_items (priority, event_at, id) WHERE state = 'waiting';
CREATE INDEX work_items_leased ON work_items (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX work_items_finished ON work_items (state, finished_at) WHERE state <> 'waiting';

CREATE TABLE sources (
    name               TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    kind               TEXT NOT NULL,
    cursor             TEXT NOT NULL,
    polled_at          BIGINT,
    succeeded_at       BIGINT,
    next_poll_at       BIGINT,
    newest_event_at    BIGINT,
    error              TEXT,
    polls              BIGINT NOT NULL,
    events             BIGINT NOT NULL,
    items              BIGINT NOT NULL,
    gaps               BIGINT NOT NULL,
    malformed          BIGINT NOT NULL,
    rate_limit         BIGINT,
    rate_remaining     BIGINT,
    rate_resets_at     BIGINT
);
