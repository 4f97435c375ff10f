//! Copying a store while its master runs, and taking a copy up as a store of its own.
//!
//! The copy is one moment of the store, read beside the writer: it waits for nobody and nobody
//! waits for it. It must never change what it copies. Read next: `open.rs`.

use std::path::Path;

use cloudai_model::Numbers;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::open::{self, BUSY_WAIT};
use super::tx::{Fault, Known, transaction};
use super::{FILE_NAME, SqliteStore};
use crate::rows::Rows as _;
use crate::{StatusCounts, StoreError};

/// Pages between two words about the progress (4 MiB).
const PAGES_PER_STEP: i32 = 1_024;

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCopy {
    /// The version of its schema.
    pub schema: u32,
    /// The last numbers that were given at its moment.
    pub numbers: Numbers,
    /// Its tasks by status.
    pub tasks: StatusCounts,
}

/// Copies the store of a data directory into the new file `to`, and reads the whole copy through
/// before it is called one. A master may use the store meanwhile. `progress` gets pages that are
/// copied and pages in all.
pub fn copy_store(
    data_dir: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<StoreCopy, StoreError> {
    let path = data_dir.join(FILE_NAME);
    if !path.is_file() {
        return Err(StoreError::Missing { dir: data_dir.to_owned() });
    }
    let named = |fault: Fault| fault.named(&path, "copy the store");
    let source = open_source(&path).map_err(|error| named(error.into()))?;
    let schema = open::check_version(&source, data_dir, &path)?;
    if schema == 0 {
        return Err(StoreError::Missing { dir: data_dir.to_owned() });
    }
    let cluster = transaction(&source, &mut Known::default(), "BEGIN", |tx| {
        // The first look fixes the moment; the pages are of the same one.
        let cluster = tx.cluster()?;
        // The copy is marked as whole without a log, so it is never made of less than the whole. A
        // log of this moment stays as long as this transaction reads.
        open::check_log(&source, &path, open::log_bytes(&path))?;
        copy_pages(&source, to, progress).map_err(|error| {
            if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                return Fault::Store(StoreError::Full { path: to.to_owned() });
            }
            error.into()
        })?;
        Ok(cluster)
    })
    .map_err(named)?;
    check_whole(to).map_err(|error| match error {
        // Its user has only this one: the copy is gone in a moment.
        StoreError::Damaged { detail, .. } => StoreError::Damaged { path, detail },
        other => other,
    })?;
    Ok(StoreCopy { schema: schema as u32, numbers: cluster.numbers, tasks: cluster.counts })
}

fn open_source(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(path, flags)?;
    source.busy_timeout(BUSY_WAIT)?;
    // The store of a master that is gone may be evidence: its log stays where it is.
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    source.pragma_update(None, "query_only", true)?;
    Ok(source)
}

fn copy_pages(
    source: &Connection,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> rusqlite::Result<()> {
    let mut copy = Connection::open(to)?;
    // Whoever asked for the copy syncs it; until then it is nothing.
    copy.pragma_update(None, "synchronous", "OFF")?;
    {
        let backup = Backup::new(source, &mut copy)?;
        while backup.step(PAGES_PER_STEP)? != StepResult::Done {
            let said = backup.progress();
            let pages = said.pagecount.unsigned_abs().into();
            progress(u64::saturating_sub(pages, said.remaining.unsigned_abs().into()), pages);
        }
    }
    // One file that needs no log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    copy.execute("UPDATE cluster SET in_use = 0", [])?;
    Ok(())
}

/// Reads a whole file through: each page, and each index against its table.
fn check_whole(path: &Path) -> Result<(), StoreError> {
    let look = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0))
    };
    let verdict = look().map_err(|error: rusqlite::Error| {
        Fault::from(error).named(path, "check the copy of the store")
    })?;
    if verdict == "ok" {
        return Ok(());
    }
    let detail = verdict.lines().collect::<Vec<_>>().join(" ");
    Err(StoreError::Damaged { path: path.to_owned(), detail })
}

impl SqliteStore {
    /// Makes the store go on from later numbers, so that none is given twice which was given after
    /// the moment that it holds.
    pub fn skip_numbers(&mut self, numbers: Numbers) -> Result<(), StoreError> {
        self.writer.run("BEGIN IMMEDIATE", "raise the numbers of the store", |tx| {
            let mut cluster = tx.cluster()?;
            let before = cluster.numbers;
            let rises = numbers.last_job >= before.last_job
                && numbers.last_session >= before.last_session
                && numbers.attempt_floor >= before.attempt_floor;
            if !rises {
                let what = format!("{numbers:?} were given before: it holds {before:?}");
                return Err(StoreError::corrupt(what).into());
            }
            cluster.numbers = numbers;
            tx.write_cluster(&cluster)
        })
    }

    /// Reads the whole file through: each page, and each index against its table. A start looks
    /// less closely.
    pub fn check_whole(&self) -> Result<(), StoreError> {
        check_whole(&self.writer.path)
    }
}
