-- The log of the registry, which is the truth about versions. Entries are only ever added; each is
-- bound to the one before by SHA-256. Times are milliseconds since the Unix epoch.
CREATE TABLE registry_event (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    -- `lodestar`, or `person:NAME`.
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    version TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT,
    reason TEXT NOT NULL,
    -- The deed as JSON: digests, gates, lineage.
    evidence TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE INDEX registry_event_by_version ON registry_event (version, seq);
CREATE TRIGGER registry_event_no_update BEFORE UPDATE ON registry_event
BEGIN SELECT RAISE(ABORT, 'entries of the registry are never changed'); END;
CREATE TRIGGER registry_event_no_delete BEFORE DELETE ON registry_event
BEGIN SELECT RAISE(ABORT, 'entries of the registry are never deleted'); END;
-- REPLACE would delete without a trigger, so that a number that is taken is refused first.
CREATE TRIGGER registry_event_in_order BEFORE INSERT ON registry_event
WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM registry_event)
    OR EXISTS (SELECT 1 FROM registry_event WHERE hash = NEW.hash)
    OR NEW.previous IS NOT COALESCE(
        (SELECT hash FROM registry_event ORDER BY seq DESC LIMIT 1), NEW.previous)
BEGIN SELECT RAISE(ABORT, 'entries of the registry are added in their order'); END;

-- The tables below follow from the log, for lists and joins. They are compared with it before each
-- command.
CREATE TABLE version (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    run TEXT NOT NULL,
    base TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    dataset TEXT NOT NULL,
    dataset_digest TEXT NOT NULL,
    examples INTEGER NOT NULL,
    -- Ids of consents, as a JSON array.
    consents TEXT NOT NULL,
    artifact TEXT,
    evaluation INTEGER NOT NULL,
    bench TEXT,
    tainted INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX version_by_dataset ON version (dataset);

CREATE TABLE version_gate (
    version TEXT NOT NULL,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    passed INTEGER NOT NULL,
    value REAL,
    -- `limit` is a word of SQL.
    bound REAL,
    evidence TEXT NOT NULL,
    overridden_by TEXT,
    override_reason TEXT,
    overridden_at INTEGER,
    PRIMARY KEY (version, place)
) WITHOUT ROWID;

CREATE TABLE version_approval (
    version TEXT NOT NULL,
    place INTEGER NOT NULL,
    person TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    evaluation INTEGER NOT NULL,
    artifact TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    dataset_digest TEXT NOT NULL,
    bench TEXT NOT NULL,
    PRIMARY KEY (version, place)
) WITHOUT ROWID;

CREATE TABLE version_alias (
    name TEXT PRIMARY KEY CHECK (name IN ('champion', 'challenger', 'previous',
        'policy', 'previous_policy')),
    version TEXT NOT NULL
) WITHOUT ROWID;
