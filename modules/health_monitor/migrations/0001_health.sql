-- Alerts, those that fire and those that ended. Times are milliseconds since the Unix epoch.
CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    component TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    -- Labels as a JSON object, the component among them.
    labels TEXT NOT NULL,
    message TEXT NOT NULL,
    value REAL,
    raised_at INTEGER NOT NULL,
    resolved_at INTEGER,
    -- Whoever works on it, and since when.
    acknowledged_by TEXT,
    acknowledged_at INTEGER
) WITHOUT ROWID;
CREATE INDEX alert_by_time ON alert (raised_at);
CREATE UNIQUE INDEX alert_that_fires ON alert (rule, labels) WHERE resolved_at IS NULL;

-- Silences: alerts that fit are kept, and nobody is told of them.
CREATE TABLE silence (
    id INTEGER PRIMARY KEY,
    matcher TEXT NOT NULL,
    comment TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL
);

-- Notes that wait for a channel, oldest first.
CREATE TABLE outbox (
    -- A UUID of version 7: its order is that of time, and the receiver knows the note by it.
    id TEXT PRIMARY KEY,
    channel TEXT NOT NULL,
    note TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL
) WITHOUT ROWID;

-- What each channel was told of each alert, as JSON, so that a restart tells nothing twice.
CREATE TABLE notifier (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    state TEXT NOT NULL
);

-- Requests that count for an objective, and those of them that were good, by buckets of five
-- minutes and of an hour. `slo` is the name and the definition of the objective.
CREATE TABLE slo_bucket (
    slo TEXT NOT NULL,
    width_ms INTEGER NOT NULL,
    -- Beginning of the bucket.
    at INTEGER NOT NULL,
    good INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (slo, width_ms, at)
) WITHOUT ROWID;
