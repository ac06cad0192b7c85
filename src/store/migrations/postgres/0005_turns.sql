-- Turns among the owners of a host, and among the repositories of an owner.
-- Whose the repository is: of nested groups the outermost.
ALTER TABLE work_items ADD COLUMN owner TEXT COLLATE "C" NOT NULL DEFAULT '';
-- The number of binary digits of how many items of its repository waited when it was added.
ALTER TABLE work_items ADD COLUMN level BIGINT NOT NULL DEFAULT 0;
DROP INDEX work_items_ready;
DROP INDEX work_items_by_repository;
UPDATE work_items SET owner = lower(split_part(repository, '/', 1));
-- What waits keeps the order that it had among its owner's.
UPDATE work_items SET turn = ordered.number - 1
FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY priority, host, owner ORDER BY turn, event_at, id) AS number
    FROM work_items WHERE state = 'waiting') AS ordered
WHERE work_items.id = ordered.id;
CREATE INDEX work_items_ready ON work_items
    (lane, priority, host, turn, level, event_at, id, ready_at, repository_id)
    WHERE state = 'waiting' AND leased_by IS NULL;
CREATE INDEX work_items_by_repository ON work_items (host, repository_id, priority) WHERE state = 'waiting';
CREATE INDEX work_items_by_owner ON work_items (owner, host, priority, level, turn) WHERE state = 'waiting';
