//! The tables of keys.

/// The migration that makes them.
pub(crate) const TABLES: &str = "
    -- The node's hybrid clock: the latest stamp that was written, time and node id as `Stamp::to_bytes` has them.
    CREATE TABLE kv_clock (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        last BLOB NOT NULL CHECK (length(last) = 16)
    ) STRICT;

    -- Entries that are there; ones whose time is over stay until maintenance or the next write takes them away.
    CREATE TABLE kv_entry (
        bucket          TEXT NOT NULL,
        key             TEXT NOT NULL,
        version         BLOB NOT NULL CHECK (length(version) = 16),
        expires_unix_ns INTEGER,
        state           BLOB NOT NULL,
        PRIMARY KEY (bucket, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX kv_entry_by_expiry ON kv_entry (expires_unix_ns) WHERE expires_unix_ns IS NOT NULL;

    -- What was deleted or has expired, for a while: apart from the entries, so that lists do not read past it.
    CREATE TABLE kv_tombstone (
        bucket        TEXT NOT NULL,
        key           TEXT NOT NULL,
        since_unix_ns INTEGER NOT NULL,
        state         BLOB NOT NULL,
        PRIMARY KEY (bucket, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX kv_tombstone_by_age ON kv_tombstone (since_unix_ns);
";
