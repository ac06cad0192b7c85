-- Announced references beside pushed ranges, remotes of any address, and items that were shed.
ALTER TABLE work_items
    ADD COLUMN kind TEXT NOT NULL DEFAULT 'range' CHECK (kind IN ('range', 'references')),
    ADD COLUMN clone_url TEXT,
    DROP CONSTRAINT work_items_state_check,
    ADD CONSTRAINT work_items_state_check CHECK (state IN ('waiting', 'done', 'dead', 'shed'));
ALTER TABLE work_items ALTER COLUMN kind DROP DEFAULT;

-- What a source saw besides pushes, what it made up for, and in words what it could not see.
ALTER TABLE sources
    ADD COLUMN texts BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN unknown BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN repaired BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN unseen TEXT;

-- What workers did with the items of a source. Apart from `sources`, which its poller writes.
CREATE TABLE source_work (
    source       TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    scanned      BIGINT NOT NULL,
    blobs        BIGINT NOT NULL,
    known_blobs  BIGINT NOT NULL,
    truncated    BIGINT NOT NULL,
    gone         BIGINT NOT NULL,
    shed         BIGINT NOT NULL,
    lag          BIGINT,
    scanned_at   BIGINT
);

-- Blobs that were scanned with a set of formats and hold no candidate.
CREATE TABLE scanned_blobs (
    ruleset    TEXT COLLATE "C" NOT NULL,
    blob       BYTEA NOT NULL,
    scanned_at BIGINT NOT NULL,
    PRIMARY KEY (ruleset, blob)
);
CREATE INDEX scanned_blobs_by_age ON scanned_blobs (scanned_at);

-- Deliveries of webhooks that changed something, so that a repeated one does not.
CREATE TABLE webhook_deliveries (
    source      TEXT COLLATE "C" NOT NULL,
    delivery    TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (source, delivery)
);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (received_at);
