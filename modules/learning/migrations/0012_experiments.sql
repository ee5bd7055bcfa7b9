-- Experiments. Times are milliseconds since the Unix epoch.
CREATE TABLE experiment (
    id TEXT PRIMARY KEY,
    champion TEXT,
    challenger TEXT NOT NULL,
    -- What the router is told, as JSON.
    route TEXT NOT NULL,
    -- The plan and all that was observed, as JSON.
    state TEXT NOT NULL,
    -- The person who started it, and why.
    started_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    end_reason TEXT,
    -- 1 once the router knows that it has ended.
    settled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
-- One experiment at a time.
CREATE UNIQUE INDEX experiment_that_goes_on ON experiment (ended_at IS NULL)
WHERE ended_at IS NULL;

-- Sessions or users that were assigned to an arm, as hashes, in their order. The rows of this
-- table and of the next two are deleted when the experiment ends.
CREATE TABLE experiment_unit (
    number INTEGER PRIMARY KEY,
    experiment TEXT NOT NULL,
    unit BLOB NOT NULL,
    -- 1 for the challenger.
    arm INTEGER NOT NULL,
    assigned_at INTEGER NOT NULL,
    -- Time at which its outcome was counted.
    counted_at INTEGER,
    UNIQUE (experiment, unit)
);
CREATE INDEX experiment_unit_due ON experiment_unit (experiment, number)
WHERE counted_at IS NULL;

-- Requests of units, by the hashes of their ids.
CREATE TABLE experiment_request (
    experiment TEXT NOT NULL,
    request BLOB NOT NULL,
    unit BLOB NOT NULL,
    session BLOB,
    -- Number of the last attempt that is known, and what became of it: 0 answered, 1 failed,
    -- 2 refused, 3 given up by the client.
    attempt INTEGER NOT NULL,
    sign INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    bytes INTEGER,
    -- 1 where the same was asked once more within a minute.
    retried INTEGER NOT NULL DEFAULT 0,
    -- Measures of what was served and of what was asked beside it, as JSON, until both are there.
    served TEXT,
    beside TEXT,
    paired INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (experiment, request)
) WITHOUT ROWID;
CREATE INDEX experiment_request_unit ON experiment_request (experiment, unit);
CREATE INDEX experiment_request_session ON experiment_request (experiment, session);

-- Feedback on the answers of units.
CREATE TABLE experiment_feedback (
    experiment TEXT NOT NULL,
    id BLOB NOT NULL,
    unit BLOB NOT NULL,
    -- Rating from 0 to 1, and its weight.
    rating REAL,
    weight REAL NOT NULL,
    -- 1 where the answer was changed or asked for again.
    redone INTEGER NOT NULL,
    PRIMARY KEY (experiment, id)
) WITHOUT ROWID;
CREATE INDEX experiment_feedback_unit ON experiment_feedback (experiment, unit);
