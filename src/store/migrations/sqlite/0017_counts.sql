-- What is counted, with all that tells its state, so that counting reads nothing but these, and of one project only what
-- is its own.
CREATE INDEX keys_by_project ON keys (project, format, revoked_at, exposed_at, expires_at, is_public);
CREATE INDEX incidents_by_project ON incidents (project, status, opened_at);
CREATE INDEX revocation_log_by_project ON revocation_log (project, action, at);
