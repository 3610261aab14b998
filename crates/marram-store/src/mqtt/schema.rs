//! The tables of the MQTT broker.

/// The migration that makes them.
pub(crate) const TABLES: &str = "
    -- `will` is an encoded will, or NULL. `ended_unix_ns` is NULL while the client is connected.
    CREATE TABLE mqtt_session (
        client        TEXT PRIMARY KEY,
        user          TEXT,
        expiry_s      INTEGER NOT NULL,
        ended_unix_ns INTEGER,
        sent_seq      INTEGER NOT NULL,
        will          BLOB
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE mqtt_subscription (
        client              TEXT NOT NULL,
        filter              TEXT NOT NULL,
        qos                 INTEGER NOT NULL CHECK (qos BETWEEN 0 AND 2),
        no_local            INTEGER NOT NULL CHECK (no_local IN (0, 1)),
        retain_as_published INTEGER NOT NULL CHECK (retain_as_published IN (0, 1)),
        id                  INTEGER NOT NULL,
        replay              INTEGER NOT NULL CHECK (replay IN (0, 1)),
        PRIMARY KEY (client, filter)
    ) STRICT, WITHOUT ROWID;

    -- A message that is in queues, and in how many places.
    CREATE TABLE mqtt_message (
        id      INTEGER PRIMARY KEY,
        places  INTEGER NOT NULL,
        message BLOB NOT NULL
    ) STRICT;

    -- `subscriptions` are numbers of four bytes each. `size` is what the message counts for in limits.
    CREATE TABLE mqtt_queue (
        client        TEXT NOT NULL,
        seq           INTEGER NOT NULL,
        message       INTEGER NOT NULL,
        qos           INTEGER NOT NULL CHECK (qos IN (1, 2)),
        retain        INTEGER NOT NULL CHECK (retain IN (0, 1)),
        released      INTEGER NOT NULL CHECK (released IN (0, 1)),
        size          INTEGER NOT NULL,
        subscriptions BLOB NOT NULL,
        PRIMARY KEY (client, seq)
    ) STRICT, WITHOUT ROWID;

    -- QoS 2 messages that their sender has not released.
    CREATE TABLE mqtt_received (
        client TEXT NOT NULL,
        packet INTEGER NOT NULL,
        PRIMARY KEY (client, packet)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE mqtt_retained (
        topic   TEXT PRIMARY KEY,
        message BLOB NOT NULL
    ) STRICT;
";

/// The migration that tells what waits for a member of a group from what waits for a client alone.
pub(crate) const SHARED: &str = "
    -- The filter of the shared subscription that the message came by, `$share/<group>/` included; NULL for the client's own.
    ALTER TABLE mqtt_queue ADD COLUMN shared TEXT;
";
