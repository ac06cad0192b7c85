ALTER TABLE work_items
    -- The commits that a part of a range takes for read beside the one before it, separated by spaces: a merged branch
    -- leads around that one.
    ADD COLUMN haves TEXT NOT NULL DEFAULT '',
    -- A part that a forced push dropped. That it cannot be read says nothing of its repository.
    ADD COLUMN dropped BOOLEAN NOT NULL DEFAULT FALSE;
