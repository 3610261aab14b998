//! The tables of objects.

/// The migration that makes them.
pub(crate) const TABLES: &str = "
    CREATE TABLE object_bucket (
        name            TEXT PRIMARY KEY,
        created_unix_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Counts every creation and every deletion of an object.
    CREATE TABLE object_clock (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        last INTEGER NOT NULL
    ) STRICT;
    INSERT INTO object_clock VALUES (1, 0);

    -- `digest` names the blob; it is NULL where the content is several, which are in `object_segment`.
    CREATE TABLE object (
        version          INTEGER PRIMARY KEY,
        bucket           TEXT NOT NULL REFERENCES object_bucket (name),
        name             TEXT NOT NULL,
        size             INTEGER NOT NULL,
        digest           BLOB CHECK (length(digest) = 32),
        etag             TEXT NOT NULL,
        modified_unix_ns INTEGER NOT NULL,
        said             BLOB NOT NULL,
        UNIQUE (bucket, name)
    ) STRICT;
    CREATE INDEX object_by_digest ON object (digest) WHERE digest IS NOT NULL;

    CREATE TABLE object_segment (
        object INTEGER NOT NULL REFERENCES object (version) ON DELETE CASCADE,
        place  INTEGER NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        size   INTEGER NOT NULL,
        PRIMARY KEY (object, place)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX object_segment_by_digest ON object_segment (digest);

    -- Objects that come in parts. `touched_unix_ns` is when something last happened to one.
    CREATE TABLE object_upload (
        id              TEXT PRIMARY KEY,
        bucket          TEXT NOT NULL REFERENCES object_bucket (name),
        name            TEXT NOT NULL,
        begun_unix_ns   INTEGER NOT NULL,
        touched_unix_ns INTEGER NOT NULL,
        checksum        TEXT NOT NULL,
        said            BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX object_upload_by_name ON object_upload (bucket, name, id);
    CREATE INDEX object_upload_by_age ON object_upload (touched_unix_ns);

    CREATE TABLE object_part (
        upload           TEXT NOT NULL REFERENCES object_upload (id) ON DELETE CASCADE,
        number           INTEGER NOT NULL,
        size             INTEGER NOT NULL,
        digest           BLOB NOT NULL CHECK (length(digest) = 32),
        etag             TEXT NOT NULL,
        modified_unix_ns INTEGER NOT NULL,
        said             BLOB NOT NULL,
        PRIMARY KEY (upload, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX object_part_by_digest ON object_part (digest);
";
