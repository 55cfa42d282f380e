-- Times are seconds since 1970. Those of the columns began, last_active, lapses and keep_until are steady: read from
-- a timeline that never runs back, also across a restart with the clock set back.

CREATE TABLE clock (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    floor      INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    tenant     TEXT,
    labels     TEXT NOT NULL,
    container  TEXT,
    policy     TEXT,
    limits     TEXT NOT NULL,
    set_limits TEXT,
    created    INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires    INTEGER NOT NULL,
    began      INTEGER NOT NULL,
    last_active INTEGER NOT NULL,
    issuer     TEXT,
    subject    TEXT,
    CHECK ((issuer IS NULL) = (subject IS NULL))
) STRICT, WITHOUT ROWID;

-- Apart from the sessions: an id can be ended that was never seen here, and is remembered longer than its session.
CREATE TABLE endings (
    id         TEXT PRIMARY KEY,
    cause      TEXT NOT NULL,
    at         INTEGER NOT NULL,
    ended_by   TEXT NOT NULL,
    -- NULL: over for every token; else for tokens that end no later than this.
    tokens_until INTEGER,
    -- Whether this gateway's own keys sign the session's tokens.
    own        INTEGER NOT NULL,
    began      INTEGER NOT NULL,
    keep_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX endings_by_keep_until ON endings (keep_until);

CREATE TABLE denials (
    kind       TEXT NOT NULL CHECK (kind IN ('session', 'token', 'subject')),
    issuer     TEXT NOT NULL,
    name       TEXT NOT NULL,
    reason     TEXT NOT NULL,
    denied_by  TEXT NOT NULL,
    at         INTEGER NOT NULL,
    until      INTEGER,
    lapses     INTEGER,
    PRIMARY KEY (kind, issuer, name),
    CHECK ((until IS NULL) = (lapses IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE kill_switch (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    since      INTEGER NOT NULL,
    set_by     TEXT NOT NULL,
    reason     TEXT NOT NULL
) STRICT;

CREATE TABLE quotas (
    tenant     TEXT PRIMARY KEY,
    sessions   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
