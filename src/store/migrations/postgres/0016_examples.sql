-- What was last left unread of a source, beside the counts of it, and when.
ALTER TABLE source_work ADD COLUMN last_unread TEXT;
ALTER TABLE source_work ADD COLUMN unread_at BIGINT;
