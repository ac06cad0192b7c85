-- A lane between the ordinary places and the one for large pushes: 0: ordinary, 1: larger or slower than a medium
-- place allows, 2: its worker died, so it is read alone, 3: larger or slower than an ordinary place allows.
ALTER TABLE work_items
    DROP CONSTRAINT work_items_lane_check,
    ADD CONSTRAINT work_items_lane_check CHECK (lane IN (0, 1, 2, 3));
