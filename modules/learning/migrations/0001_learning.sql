-- Text that may be learnt from, who agreed to it, and the datasets made of it. Times are
-- milliseconds since the Unix epoch.

-- Who agreed that text of a project is kept and learnt from, and until when.
CREATE TABLE consent (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('all', 'capture', 'import')),
    granted_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_by TEXT
) WITHOUT ROWID;
CREATE INDEX consent_by_project ON consent (project, granted_at);

-- Who attests that a model may be learnt from although its terms are restricted or unknown.
CREATE TABLE attestation (
    model TEXT PRIMARY KEY,
    attested_by TEXT NOT NULL,
    statement TEXT NOT NULL,
    attested_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Conversations whose last message is an answer. One that was forgotten keeps its id alone, so that
-- it does not come back.
CREATE TABLE example (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    conversation TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('event', 'jsonl', 'claude_code', 'codex')),
    -- The key of the request, and the id under which feedback names it.
    dedupe_key TEXT,
    request_id TEXT,
    at INTEGER NOT NULL,
    kept_at INTEGER NOT NULL,
    model TEXT,
    consent TEXT NOT NULL,
    -- JSON, and the hash of the question, by which the same one is found again.
    messages TEXT NOT NULL,
    tools TEXT,
    question BLOB NOT NULL,
    finish_reason TEXT,
    failed INTEGER NOT NULL DEFAULT 0,
    truncated INTEGER NOT NULL DEFAULT 0,
    forgotten_at INTEGER
);
CREATE INDEX example_by_project ON example (project, at) WHERE forgotten_at IS NULL;
CREATE INDEX example_by_conversation ON example (conversation, at) WHERE forgotten_at IS NULL;
CREATE INDEX example_by_age ON example (kept_at) WHERE forgotten_at IS NULL;
CREATE INDEX example_by_key ON example (dedupe_key) WHERE dedupe_key IS NOT NULL;
CREATE INDEX example_by_request ON example (request_id) WHERE request_id IS NOT NULL;

-- Signs of how good an answer was. `about` is the id of an example, of a request, or its key; a
-- sign about a whole session has none.
CREATE TABLE feedback (
    id TEXT PRIMARY KEY,
    about TEXT,
    session TEXT,
    origin TEXT NOT NULL,
    given_by TEXT,
    at INTEGER NOT NULL,
    good INTEGER,
    rating REAL,
    edited INTEGER,
    retried INTEGER
) WITHOUT ROWID;
CREATE INDEX feedback_by_request ON feedback (about) WHERE about IS NOT NULL;
CREATE INDEX feedback_by_session ON feedback (session) WHERE about IS NULL;
CREATE INDEX feedback_by_age ON feedback (at);

-- How requests ended whose text is not here yet.
CREATE TABLE ending (
    dedupe_key TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    finish_reason TEXT,
    failed INTEGER NOT NULL
);
CREATE INDEX ending_by_age ON ending (at);

-- Datasets by the hash of their lines; the lines lie in files.
CREATE TABLE dataset (
    id TEXT PRIMARY KEY,
    projects TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    train INTEGER NOT NULL,
    eval INTEGER NOT NULL,
    -- JSON: all that the card says.
    summary TEXT NOT NULL,
    -- The reason for which it must not be trained on, and since when.
    stale TEXT,
    stale_at INTEGER,
    -- Since when its text is gone.
    erased_at INTEGER
) WITHOUT ROWID;
CREATE INDEX dataset_by_time ON dataset (created_at);

CREATE TABLE dataset_example (
    dataset TEXT NOT NULL,
    example TEXT NOT NULL,
    consent TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'eval', 'rejected')),
    PRIMARY KEY (dataset, example, split)
) WITHOUT ROWID;
CREATE INDEX dataset_example_by_example ON dataset_example (example);
CREATE INDEX dataset_example_by_consent ON dataset_example (consent);
