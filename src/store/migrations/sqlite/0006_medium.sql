-- A lane between the ordinary places and the one for large pushes. SQLite cannot change a constraint, so the column
-- is made anew, and with it the index that it is in.
DROP INDEX work_items_ready;
ALTER TABLE work_items RENAME COLUMN lane TO former_lane;
-- 0: ordinary, 1: larger or slower than a medium place allows, 2: its worker died, so it is read alone, 3: larger or
-- slower than an ordinary place allows.
ALTER TABLE work_items ADD COLUMN lane INTEGER NOT NULL DEFAULT 0 CHECK (lane IN (0, 1, 2, 3));
UPDATE work_items SET lane = former_lane WHERE former_lane <> 0;
ALTER TABLE work_items DROP COLUMN former_lane;
CREATE INDEX work_items_ready ON work_items
    (lane, priority, host, turn, level, event_at, id, ready_at, repository_id, state, leased_by)
    WHERE state = 'waiting' AND leased_by IS NULL;
