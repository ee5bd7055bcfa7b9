-- Sets of labels that the router's policies are learnt from. Their lines lie in files, with numbers
-- and names and no text. Times are milliseconds since the Unix epoch.
CREATE TABLE label_set (
    -- The hash of its lines.
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    -- JSON: counts by source and side.
    summary TEXT NOT NULL,
    -- The reason for which nothing may be learnt from it any more.
    stale TEXT,
    -- Since when its lines are gone.
    erased_at INTEGER
) WITHOUT ROWID;
