-- Store version 1. Times are milliseconds since the Unix epoch. Numbers that stand for words are
-- listed in database/README.md and in sqlite/codec.rs.

-- One row: what counts for the whole cluster. Queued tasks are all others.
CREATE TABLE cluster (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    last_job     INTEGER NOT NULL,
    last_session INTEGER NOT NULL,
    attempt_floor INTEGER NOT NULL, -- no attempt is given a number up to it any more
    in_use       INTEGER NOT NULL, -- 1 until a clean close: the write-ahead log belongs to it
    queued       INTEGER NOT NULL,
    assigned     INTEGER NOT NULL,
    running      INTEGER NOT NULL,
    succeeded    INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    cancelled    INTEGER NOT NULL
) STRICT;
INSERT INTO cluster VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE worker (
    no            INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    session       INTEGER NOT NULL,
    kind          INTEGER NOT NULL,
    address       TEXT NOT NULL,
    cpu_milli     INTEGER NOT NULL,
    memory_bytes  INTEGER NOT NULL,
    storage_bytes INTEGER NOT NULL,
    gpu_milli     INTEGER NOT NULL,
    volumes       TEXT NOT NULL, -- a JSON array of names
    version       TEXT NOT NULL,
    registered_at INTEGER NOT NULL
) STRICT;

-- Equal specs are stored once; the hash only narrows the search.
CREATE TABLE spec (
    no   INTEGER PRIMARY KEY,
    hash INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX spec_by_hash ON spec (hash);

CREATE TABLE job (
    id           INTEGER PRIMARY KEY,
    spec         INTEGER NOT NULL, -- spec.no
    array        INTEGER NOT NULL, -- 0: one task at position 0; 1: positions first..=last
    first        INTEGER NOT NULL,
    last         INTEGER NOT NULL,
    at_once_max  INTEGER,
    request      TEXT,
    submitted_at INTEGER NOT NULL,
    fresh_from   INTEGER NOT NULL, -- no position below is fresh
    fresh        INTEGER NOT NULL, -- how many positions are fresh
    assigned     INTEGER NOT NULL,
    running      INTEGER NOT NULL,
    succeeded    INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    cancelled    INTEGER NOT NULL,
    open         INTEGER NOT NULL  -- 1 while a task has not ended
) STRICT;
CREATE UNIQUE INDEX job_by_request ON job (request) WHERE request IS NOT NULL;
CREATE INDEX job_open ON job (id) WHERE open = 1;
CREATE INDEX job_unsuccessful ON job (id) WHERE failed + cancelled > 0;

-- Tasks that were placed at least once, and those that were cancelled one by one before.
CREATE TABLE task (
    job              INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    attempt          INTEGER NOT NULL, -- the current one, or the next one while queued
    worker           INTEGER,          -- worker.no of who holds or ended it
    session          INTEGER,
    placed_at        INTEGER,
    started_at       INTEGER,
    cancel_requested INTEGER NOT NULL,
    failures         INTEGER NOT NULL,
    crashes          INTEGER NOT NULL, -- its worker was lost while it ran
    infra            INTEGER NOT NULL, -- lost to an engine, a disk, or before it started
    lost             INTEGER,          -- why the last attempt went away, while queued
    cause            INTEGER,
    exit_code        INTEGER,
    lost_at          INTEGER,
    message          TEXT,
    finished_at      INTEGER,          -- by the worker's clock
    ended_at         INTEGER,          -- when the end was stored; NULL while the task lives
    PRIMARY KEY (job, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_live ON task (job, position) WHERE ended_at IS NULL;
CREATE INDEX task_unsuccessful ON task (job, position) WHERE state >= 5;

-- Positions without a row in task that were cancelled by one command.
CREATE TABLE cancelled_span (
    job   INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (job, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt_lost (
    job        INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    lost       INTEGER NOT NULL,
    cause      INTEGER,
    exit_code  INTEGER,
    message    TEXT NOT NULL,
    worker     INTEGER NOT NULL,
    session    INTEGER NOT NULL,
    placed_at  INTEGER NOT NULL,
    started_at INTEGER,
    lost_at    INTEGER NOT NULL,
    PRIMARY KEY (job, position, attempt)
) STRICT, WITHOUT ROWID;
