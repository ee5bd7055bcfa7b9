-- Scores that a judge model gave answers, from 0 to 1. Times are milliseconds since the Unix epoch.
CREATE TABLE judge_score (
    example TEXT NOT NULL,
    model TEXT NOT NULL,
    score REAL NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (example, model)
) WITHOUT ROWID;
CREATE INDEX judge_score_by_time ON judge_score (at);
