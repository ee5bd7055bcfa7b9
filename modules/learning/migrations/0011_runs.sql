-- Runs of trainers. Times are milliseconds since the Unix epoch.
CREATE TABLE run (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('queued', 'training', 'stopped', 'failed', 'done')),
    trainer TEXT NOT NULL,
    -- The job as JSON.
    job TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    -- The process: its number, its start in ticks, and the id of the machine's start.
    pid INTEGER,
    started INTEGER,
    boot TEXT,
    -- All that the trainer told, as JSON: numbers and paths.
    told TEXT NOT NULL,
    outcome TEXT,
    message TEXT,
    smaller TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;
-- One training at a time.
CREATE UNIQUE INDEX run_in_training ON run (state) WHERE state = 'training';
CREATE INDEX run_by_time ON run (created_at);
