-- The commits that a part of a range takes for read beside the one before it, separated by spaces: a merged branch leads
-- around that one.
ALTER TABLE work_items ADD COLUMN haves TEXT NOT NULL DEFAULT '';
-- A part that a forced push dropped. That it cannot be read says nothing of its repository.
ALTER TABLE work_items ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0 CHECK (dropped IN (0, 1));
