-- Usage of language models. Times are Unix milliseconds, UTC; money is nano-USD (1e-9 USD), NULL
-- for unknown; ids of `name` stand for texts.

-- "LODS": tells our file from anybody else's.
PRAGMA application_id = 0x4C4F4453;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- Texts that come again and again: providers, models, projects, clients, …
CREATE TABLE name (
    id   INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (kind, text)
);

CREATE TABLE session (
    id             INTEGER PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    project        INTEGER,
    client         INTEGER,
    started_at     INTEGER NOT NULL,
    ended_at       INTEGER NOT NULL,
    last_model     INTEGER,
    model_switches INTEGER NOT NULL,
    open           INTEGER NOT NULL
);
CREATE INDEX session_by_end ON session (ended_at);
CREATE INDEX session_open ON session (ended_at) WHERE open = 1;

-- The first 16 bytes of the SHA-256 of every dedupe key that was ever counted. A key outlives its
-- request, as long as the rollups that count it, so that a resent report never counts twice.
CREATE TABLE request_key (
    key     BLOB PRIMARY KEY,
    request INTEGER NOT NULL
) WITHOUT ROWID;

-- One row per request, for as long as `retention_days` says.
CREATE TABLE request (
    id                    INTEGER PRIMARY KEY,
    event_id              BLOB NOT NULL,
    -- A text, or 1 for `provider:upstream_request_id`, or 2 for `provider:response_id`.
    dedupe_key            NOT NULL,
    ended_at              INTEGER NOT NULL,
    elapsed_ms            INTEGER NOT NULL,
    flags                 INTEGER NOT NULL,
    source                INTEGER,
    session               INTEGER,
    project               INTEGER,
    client                INTEGER,
    client_version        INTEGER,
    branch                INTEGER,
    user                  INTEGER,
    provider              INTEGER,
    request_model         INTEGER,
    response_model        INTEGER,
    routed_model          INTEGER,
    status                INTEGER,
    input_tokens          INTEGER,
    cache_read_tokens     INTEGER,
    cache_write_5m_tokens INTEGER,
    cache_write_1h_tokens INTEGER,
    output_tokens         INTEGER,
    reasoning_tokens      INTEGER,
    cost_nano_usd         INTEGER,
    cost_source           INTEGER,
    price_version         INTEGER,
    baseline_nano_usd     INTEGER,
    unpriced              INTEGER NOT NULL,
    duration_ms           INTEGER,
    ttft_ms               INTEGER,
    ttfb_ms               INTEGER,
    stream                INTEGER,
    dialect               INTEGER,
    operation             INTEGER,
    usage_source          INTEGER,
    http_status           INTEGER,
    error_type            INTEGER,
    finish_reason         INTEGER,
    attempt               INTEGER,
    retry_of              TEXT,
    source_ref            TEXT,
    turn_id               TEXT,
    trace_id              TEXT,
    span_id               TEXT,
    response_id           TEXT,
    upstream_request_id   TEXT,
    upstream              INTEGER,
    upstream_ms           INTEGER,
    queue_ms              INTEGER,
    load_ms               INTEGER,
    prompt_eval_ms        INTEGER,
    eval_ms               INTEGER,
    cache                 INTEGER,
    route_rule            INTEGER,
    variant               INTEGER,
    fallback_from         INTEGER,
    request_bytes         INTEGER,
    response_bytes        INTEGER,
    schema                INTEGER NOT NULL
);
CREATE INDEX request_by_end ON request (ended_at);
CREATE INDEX request_by_session ON request (session, ended_at) WHERE session IS NOT NULL;

-- Rollups, written in the transaction of the requests and kept when those are gone. `hour` and
-- `day` count from the Unix epoch in UTC; 0 stands for an unknown name. `duration` and `ttft` are
-- mergeable histograms.
CREATE TABLE usage_hour (
    hour INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    model INTEGER NOT NULL,
    project INTEGER NOT NULL,
    client INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    priced INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    compared INTEGER NOT NULL,
    compared_cost INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    duration BLOB,
    ttft BLOB,
    PRIMARY KEY (hour, provider, model, project, client, branch)
) WITHOUT ROWID;

CREATE TABLE usage_day (
    day INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    model INTEGER NOT NULL,
    project INTEGER NOT NULL,
    client INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    priced INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    compared INTEGER NOT NULL,
    compared_cost INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    duration BLOB,
    ttft BLOB,
    PRIMARY KEY (day, provider, model, project, client, branch)
) WITHOUT ROWID;

CREATE TABLE usage_session (
    session INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    model INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    priced INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    compared INTEGER NOT NULL,
    compared_cost INTEGER NOT NULL,
    baseline INTEGER NOT NULL,
    duration BLOB,
    ttft BLOB,
    PRIMARY KEY (session, hour, model)
) WITHOUT ROWID;
