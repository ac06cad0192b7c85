-- Commits are left that would be read with a further budget: parts found no room, or the budget of a push was used up.
ALTER TABLE work_items ADD COLUMN unread BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX work_items_unread ON work_items (host, remote, ref_name, finished_at)
    WHERE state = 'dead' OR gone OR unread;
