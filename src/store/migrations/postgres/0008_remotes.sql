-- Whoever signs an announcement chooses the identifier, the name and the clone URL of the repository that he tells of.
-- An item is therefore known by all three: `NAME URL IDENTIFIER`, with `-` for the URL of the host's source.
ALTER TABLE work_items ADD COLUMN remote TEXT COLLATE "C" NOT NULL DEFAULT '';
-- The program keeps a digest of what is longer, and PostgreSQL bounds what an index holds. So the few of those that are
-- there are known to nobody, and read again if they are named again.
UPDATE work_items SET remote = CASE
    WHEN octet_length(repository || ' ' || COALESCE(clone_url, '-') || ' ' || repository_id) <= 256
    THEN repository || ' ' || COALESCE(clone_url, '-') || ' ' || repository_id
    ELSE 'sha256:' || id END;
ALTER TABLE work_items
    DROP CONSTRAINT work_items_identity,
    ADD CONSTRAINT work_items_identity UNIQUE (host, remote, ref_name, before_id, after_id, part_of);
DROP INDEX work_items_ready;
CREATE INDEX work_items_ready ON work_items (lane, priority, host, turn, level, event_at, id, ready_at, remote)
    WHERE state = 'waiting' AND leased_by IS NULL;
DROP INDEX work_items_by_repository;
CREATE INDEX work_items_by_repository ON work_items (host, remote, priority) WHERE state = 'waiting';
