ALTER TABLE work_items
    -- How often the server said that there is nothing to read, which is not believed at once.
    ADD COLUMN denials BIGINT NOT NULL DEFAULT 0,
    -- How long it was to wait when `ready_at` was set, in microseconds: it cannot be further ahead unless the clock went
    -- back.
    ADD COLUMN wait BIGINT;
