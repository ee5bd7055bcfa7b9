-- Questions that a judge model was asked, whether a rating came of them or not. Times are
-- milliseconds since the Unix epoch.
CREATE TABLE judge_asked (at INTEGER NOT NULL);
CREATE INDEX judge_asked_by_time ON judge_asked (at);
