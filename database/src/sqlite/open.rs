//! Opening the file: refuse what is not ours, what is newer and what is damaged before anything is
//! changed, then bring an older one up to date.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::tx::Fault;
use crate::StoreError;

/// The schema, one step a version: the length is the version that this binary writes. A step that
/// was released is never changed; a new version is a new step.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// "CLAI": marks the file as ours.
const APPLICATION_ID: i32 = 0x434c_4149;

/// Files up to this size are read through at every start (about two seconds a gigabyte). Larger
/// ones would hold up a restart; SQLite still checks each page that it reads.
const CHECKED_BYTES_MAX: u64 = 1 << 30;

/// How long a connection waits for another program that looks into the file.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Pages that the writer keeps in memory, in KiB.
const WRITER_CACHE_KIB: i64 = 32 << 10;

/// Pages in the write-ahead log before they are moved into the file (16 MiB): rows that change
/// several times are then moved once.
const CHECKPOINT_PAGES: i64 = 4_000;

/// Prepared statements that a connection keeps: more than there are texts in this crate.
const STATEMENTS_MAX: usize = 64;

/// The one connection that writes.
pub(super) fn open_writer(dir: &Path, path: &Path) -> Result<Connection, StoreError> {
    let named = |fault: Fault| fault.named(path, "open the store");
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| named(error.into()))?;
    connection.busy_timeout(BUSY_WAIT).map_err(|error| named(error.into()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Before the first look, which makes one.
    let log_bytes = log_bytes(path);
    // Looking must not move the log into the file: a refusal leaves everything as it was.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(|error| named(error.into()))?;
    let version = check_version(&connection, dir, path)?;
    check_pages(&connection, path)?;
    if version > 0 {
        check_log(&connection, path, log_bytes).map_err(named)?;
    }
    take_up(&mut connection, version).map_err(|error| named(error.into()))?;
    Ok(connection)
}

fn take_up(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    prepare(connection)?;
    migrate(connection, version)?;
    mark_in_use(connection, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// How much is in the write-ahead log of a file.
pub(super) fn log_bytes(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |log| log.len())
}

/// Refuses a file that was not closed when the log that belongs to it is not there.
pub(super) fn check_log(connection: &Connection, path: &Path, log_bytes: u64) -> Result<(), Fault> {
    let in_use: bool = connection.query_row("SELECT in_use FROM cluster", [], |row| row.get(0))?;
    if in_use && log_bytes == 0 {
        return Err(StoreError::LogMissing { path: path.to_owned() }.into());
    }
    Ok(())
}

/// Notes in the file itself, not only in its log, whether a log belongs to it: a file without the
/// log that holds its last commits looks whole and is not.
pub(super) fn mark_in_use(connection: &Connection, in_use: bool) -> rusqlite::Result<()> {
    connection.execute("UPDATE cluster SET in_use = ?", [in_use])?;
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// A connection that only looks.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| Fault::from(error).named(path, "open a reader"))
}

/// The version in the file; 0 when it is new.
pub(super) fn check_version(
    connection: &Connection,
    dir: &Path,
    path: &Path,
) -> Result<usize, StoreError> {
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|error| Fault::from(error).named(path, "read the version of the store"))
    };
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if tables == 0 {
        return Ok(0);
    }
    if number("PRAGMA application_id")? != i64::from(APPLICATION_ID) {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let found = number("PRAGMA user_version")?;
    let found = u32::try_from(found).map_err(|_| StoreError::Damaged {
        path: path.to_owned(),
        detail: format!("it says that it has version {found}"),
    })?;
    if found as usize > MIGRATIONS.len() {
        let known = MIGRATIONS.len() as u32;
        return Err(StoreError::Newer { dir: dir.to_owned(), found, known });
    }
    Ok(found as usize)
}

fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let size = std::fs::metadata(path)
        .map_err(|source| StoreError::Io {
            doing: "read the size of",
            path: path.to_owned(),
            source,
        })?
        .len();
    if size > CHECKED_BYTES_MAX {
        return Ok(());
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| Fault::from(error).named(path, "check the store"))?;
    if verdict == "ok" {
        return Ok(());
    }
    let detail = verdict.lines().collect::<Vec<_>>().join(" ");
    Err(StoreError::Damaged { path: path.to_owned(), detail })
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (step, number) in MIGRATIONS.iter().zip(1_u32..).skip(version) {
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}
