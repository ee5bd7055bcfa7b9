-- Who answers for answers of a project that name no model: by what they may be learnt from. Times
-- are milliseconds since the Unix epoch.
CREATE TABLE attestation_of_project (
    project TEXT PRIMARY KEY,
    attested_by TEXT NOT NULL,
    statement TEXT NOT NULL,
    attested_at INTEGER NOT NULL
) WITHOUT ROWID;
