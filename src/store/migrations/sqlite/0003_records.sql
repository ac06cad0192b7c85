-- A value is unique within a project only: what one project holds says nothing to another, and takes nothing
-- from it. SQLite cannot change a column's constraint, so the table is made anew. What refers to it leads nowhere
-- in between; that is counted, row by row as the old ones go and the new ones come, and must be nothing again when
-- the transaction commits: https://sqlite.org/foreignkeys.html#fk_deferred
PRAGMA defer_foreign_keys = ON;
CREATE TABLE keys_copy AS SELECT * FROM keys ORDER BY rowid;
-- Each row is looked for in every column that may refer to it.
CREATE INDEX keys_by_successor ON keys (replaced_by) WHERE replaced_by IS NOT NULL;
DROP TABLE keys;
CREATE TABLE keys (
    id            TEXT PRIMARY KEY NOT NULL,
    project       TEXT NOT NULL REFERENCES projects (id),
    digest        BLOB NOT NULL,
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
CREATE INDEX keys_by_successor ON keys (replaced_by) WHERE replaced_by IS NOT NULL;
INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description, is_public, prefix, last_four,
    policy, notify_emails, created_at, expires_at, revoked_at, exposed_at, replaced_by)
SELECT id, project, digest, format, owner_type, owner_id, description, is_public, prefix, last_four,
    policy, notify_emails, created_at, expires_at, revoked_at, exposed_at, replaced_by
FROM keys_copy ORDER BY rowid;
DROP TABLE keys_copy;
CREATE UNIQUE INDEX keys_by_digest ON keys (digest, project);
CREATE INDEX keys_by_owner ON keys (owner_id, owner_type, created_at, id);
CREATE INDEX keys_by_age ON keys (created_at, id);
CREATE TRIGGER keys_are_kept BEFORE DELETE ON keys
BEGIN SELECT RAISE(ABORT, 'keys are never deleted'); END;

-- Who sees what hangs on these columns, and none of them ever changes. That a key was revoked is never undone.
CREATE TRIGGER keys_keep_their_project BEFORE UPDATE OF id, project ON keys
WHEN NEW.id IS NOT OLD.id OR NEW.project IS NOT OLD.project
BEGIN SELECT RAISE(ABORT, 'keys never change their project'); END;
CREATE TRIGGER keys_stay_revoked BEFORE UPDATE OF revoked_at ON keys
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'a revocation is never undone'); END;
CREATE TRIGGER incidents_keep_their_key BEFORE UPDATE OF id, project, key_id ON incidents
WHEN NEW.id IS NOT OLD.id OR NEW.project IS NOT OLD.project OR NEW.key_id IS NOT OLD.key_id
BEGIN SELECT RAISE(ABORT, 'incidents never change their key'); END;
CREATE TRIGGER occurrences_keep_their_key BEFORE UPDATE OF key_id, incident_id ON occurrences
WHEN NEW.key_id IS NOT OLD.key_id OR NEW.incident_id IS NOT OLD.incident_id
BEGIN SELECT RAISE(ABORT, 'occurrences never change their key'); END;
CREATE TRIGGER uses_keep_their_key BEFORE UPDATE OF key_id ON uses_after_exposure
WHEN NEW.key_id IS NOT OLD.key_id
BEGIN SELECT RAISE(ABORT, 'uses never change their key'); END;
CREATE TRIGGER tokens_keep_their_project BEFORE UPDATE OF id, project, role ON tokens
WHEN NEW.id IS NOT OLD.id OR NEW.project IS NOT OLD.project OR NEW.role IS NOT OLD.role
BEGIN SELECT RAISE(ABORT, 'access tokens never change their project or role'); END;

-- Counts that two transactions took off twice.
UPDATE source_work SET shed = 0 WHERE shed < 0;
