-- Definitions of the formats in which keys and access tokens were minted, so that it can be told which of them are hunted
-- no more. Those that were made before, or imported, do not say theirs.
CREATE TABLE definitions (
    id         TEXT PRIMARY KEY NOT NULL,
    toml       TEXT NOT NULL,
    first_used INTEGER NOT NULL
) STRICT;
ALTER TABLE keys ADD COLUMN definition TEXT;
ALTER TABLE tokens ADD COLUMN definition TEXT;
