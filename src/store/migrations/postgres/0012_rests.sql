-- The branch of `HEAD` that counted as read when a new branch or tag was read, so that no two count each other as read.
ALTER TABLE work_items ADD COLUMN rested_on TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX work_items_rested ON work_items (host, remote, ref_name) WHERE rested_on <> '';
CREATE INDEX work_items_resting ON work_items (host, remote, rested_on) WHERE rested_on <> '';
CREATE INDEX work_items_parts ON work_items (host, remote, ref_name, part_of) WHERE part_of <> '';
