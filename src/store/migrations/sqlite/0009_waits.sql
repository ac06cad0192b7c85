-- How often the server said that there is nothing to read, which is not believed at once.
ALTER TABLE work_items ADD COLUMN denials INTEGER NOT NULL DEFAULT 0;
-- How long it was to wait when `ready_at` was set, in microseconds: it cannot be further ahead unless the clock went back.
ALTER TABLE work_items ADD COLUMN wait INTEGER;
