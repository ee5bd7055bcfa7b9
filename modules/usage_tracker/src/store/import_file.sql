-- Files of transcripts that were imported, by the first 16 bytes of the SHA-256 of a pseudonym of
-- their names: what they were like, and how far they were read. The table is made where it is
-- needed and is no step of the schema, so that the build before can go on with the file.
CREATE TABLE IF NOT EXISTS import_file (
    key         BLOB PRIMARY KEY,
    tool        TEXT NOT NULL,
    device      INTEGER NOT NULL,
    inode       INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    -- Position behind the last whole line, and the number of lines up to there.
    position    INTEGER NOT NULL,
    line        INTEGER NOT NULL,
    -- SHA-256, in hexadecimal, of so many bytes at the beginning of the file.
    head        TEXT,
    head_bytes  INTEGER NOT NULL,
    read_at     INTEGER NOT NULL
) WITHOUT ROWID
