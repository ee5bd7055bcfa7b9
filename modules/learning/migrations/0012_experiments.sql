-- Experiments. Times are milliseconds since the Unix epoch.
CREATE TABLE experiment (
    id TEXT PRIMARY KEY,
    champion TEXT,
    challenger TEXT NOT NULL,
    -- The plan and all that was observed, as JSON.
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER
) WITHOUT ROWID;
-- One experiment at a time.
CREATE UNIQUE INDEX experiment_that_goes_on ON experiment (ended_at IS NULL)
WHERE ended_at IS NULL;

-- Sessions or users that were assigned to an arm, as hashes.
CREATE TABLE experiment_unit (
    experiment TEXT NOT NULL,
    unit BLOB NOT NULL,
    -- 1 for the challenger.
    arm INTEGER NOT NULL,
    assigned_at INTEGER NOT NULL,
    -- Time of its outcome.
    counted_at INTEGER,
    PRIMARY KEY (experiment, unit)
) WITHOUT ROWID;
