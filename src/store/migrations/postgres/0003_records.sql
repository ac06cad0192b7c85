-- A value is unique within a project only: what one project holds says nothing to another, and takes nothing
-- from it.
ALTER TABLE keys
    DROP CONSTRAINT keys_digest_key,
    ADD UNIQUE (digest, project);

-- Who sees what hangs on these columns, and none of them ever changes. That a key was revoked is never undone.
CREATE TRIGGER keys_keep_their_project BEFORE UPDATE OF id, project ON keys FOR EACH ROW
WHEN ((NEW.id, NEW.project) IS DISTINCT FROM (OLD.id, OLD.project))
EXECUTE FUNCTION refuse_change('keys never change their project');
CREATE TRIGGER keys_stay_revoked BEFORE UPDATE OF revoked_at ON keys FOR EACH ROW
WHEN (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
EXECUTE FUNCTION refuse_change('a revocation is never undone');
CREATE TRIGGER incidents_keep_their_key BEFORE UPDATE OF id, project, key_id ON incidents FOR EACH ROW
WHEN ((NEW.id, NEW.project, NEW.key_id) IS DISTINCT FROM (OLD.id, OLD.project, OLD.key_id))
EXECUTE FUNCTION refuse_change('incidents never change their key');
CREATE TRIGGER occurrences_keep_their_key BEFORE UPDATE OF key_id, incident_id ON occurrences FOR EACH ROW
WHEN ((NEW.key_id, NEW.incident_id) IS DISTINCT FROM (OLD.key_id, OLD.incident_id))
EXECUTE FUNCTION refuse_change('occurrences never change their key');
CREATE TRIGGER uses_keep_their_key BEFORE UPDATE OF key_id ON uses_after_exposure FOR EACH ROW
WHEN (NEW.key_id IS DISTINCT FROM OLD.key_id)
EXECUTE FUNCTION refuse_change('uses never change their key');
CREATE TRIGGER tokens_keep_their_project BEFORE UPDATE OF id, project, role ON tokens FOR EACH ROW
WHEN ((NEW.id, NEW.project, NEW.role) IS DISTINCT FROM (OLD.id, OLD.project, OLD.role))
EXECUTE FUNCTION refuse_change('access tokens never change their project or role');

-- Counts that two transactions took off twice.
UPDATE source_work SET shed = 0 WHERE shed < 0;
