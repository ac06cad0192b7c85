-- Lanes for what is large and for what a worker died of, turns among the repositories of a host, and what came
-- of what. Parts of a range stand apart from ranges that a source named, so that neither stands for the other.
ALTER TABLE work_items
    -- 0: ordinary, 1: larger than an ordinary place, 2: its worker died, so it is read alone.
    ADD COLUMN lane BIGINT NOT NULL DEFAULT 0 CHECK (lane IN (0, 1, 2)),
    -- How many items of its repository waited when it was added.
    ADD COLUMN turn BIGINT NOT NULL DEFAULT 0,
    -- How many workers died while they held it.
    ADD COLUMN deaths BIGINT NOT NULL DEFAULT 0,
    -- Done, because the repository or the commit was not there.
    ADD COLUMN gone BOOLEAN NOT NULL DEFAULT FALSE,
    -- The item that a source named, the steps from it to this one, and what may still come of this one.
    ADD COLUMN origin TEXT COLLATE "C",
    ADD COLUMN generation BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN parts_left BIGINT,
    ADD COLUMN bytes_left BIGINT,
    -- The origin again when this is a part of its range, else empty.
    ADD COLUMN part_of TEXT COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT work_items_host_repository_id_ref_name_before_id_after_id_key,
    ADD CONSTRAINT work_items_identity UNIQUE (host, repository_id, ref_name, before_id, after_id, part_of);
-- What can be claimed, host by host: a host that is left alone is stepped over, however much of it waits.
CREATE INDEX work_items_ready ON work_items (lane, priority, host, turn, event_at, id, ready_at)
    WHERE state = 'waiting' AND leased_by IS NULL;
CREATE INDEX work_items_by_repository ON work_items (host, repository_id) WHERE state = 'waiting';

-- Items that were not added because too much waited already.
ALTER TABLE source_work ADD COLUMN refused BIGINT NOT NULL DEFAULT 0;
