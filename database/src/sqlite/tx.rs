//! One transaction: its prepared statements, the ids that are known by number, and how its
//! failures become errors in words.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use cloudai_model::{LiveTask, TaskSpec, TaskState, WorkerId};
use rusqlite::{CachedStatement, Connection, ErrorCode, Statement, ffi};

use crate::StoreError;

/// Specs that are kept in memory by one connection, so that a store with a million different ones
/// does not fill it.
const SPECS_MAX: usize = 512;

/// Bytes that are written to see whether there is room: more than SQLite writes at once.
const ROOM_LEN: usize = 256 << 10;

/// What went wrong inside a transaction.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// The error for the outside, with the file and what was tried.
    pub(super) fn named(self, path: &Path, doing: &'static str) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Sqlite(error) => error,
        };
        // The second is how a full disk stops the index of the write-ahead log from growing.
        let full = [Some(ffi::SQLITE_FULL), Some(ffi::SQLITE_IOERR_SHMSIZE)];
        // So is a quota told that is used up, and much else.
        let unwritten = [Some(ffi::SQLITE_IOERR_WRITE), Some(ffi::SQLITE_IOERR_FSYNC)];
        let code = error.sqlite_error().map(|error| error.extended_code);
        let path = path.to_owned();
        match error.sqlite_error_code() {
            _ if full.contains(&code) => StoreError::Full { path },
            _ if unwritten.contains(&code) && has_no_room(&path) => StoreError::Full { path },
            Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Damaged { path, detail: error.to_string() }
            }
            _ => {
                let place = path.display().to_string();
                StoreError::Backend { doing, place, source: Box::new(error) }
            }
        }
    }
}

/// Whether nothing more can be written beside the store: SQLite does not say why a write failed.
fn has_no_room(store: &Path) -> bool {
    let path = store.with_extension("room");
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(&vec![0; ROOM_LEN])?;
        file.sync_all()
    };
    let written: io::Result<()> = write();
    // It is written anew each time, should it stay.
    drop(std::fs::remove_file(&path));
    let is_full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    written.is_err_and(|error| is_full(error.kind()))
}

/// What a connection knows without asking. Numbers are never given a new meaning, and live tasks
/// have one writer, so that only a rolled back transaction can make this wrong; its owner then
/// forgets it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) worker_ids: HashMap<i64, WorkerId>,
    pub(super) worker_nos: HashMap<WorkerId, i64>,
    pub(super) specs: HashMap<i64, Arc<TaskSpec>>,
    pub(super) spec_nos: HashMap<Arc<TaskSpec>, i64>,
    /// Live tasks that this connection wrote, by job and position: each is read again when it
    /// moves, and that is soon. Stays empty on a reader, which must see what others write.
    pub(super) live_tasks: HashMap<(i64, u32), LiveTask>,
}

impl Known {
    /// What this connection wrote of a task. An ended task is not written again.
    pub(super) fn wrote_task(&mut self, job: i64, position: u32, state: &TaskState) {
        match state {
            TaskState::Live(live) => drop(self.live_tasks.insert((job, position), live.clone())),
            TaskState::Fresh | TaskState::Ended(_) => {
                self.live_tasks.remove(&(job, position));
            }
        }
    }

    pub(super) fn worker(&mut self, no: i64, id: WorkerId) {
        self.worker_ids.insert(no, id.clone());
        self.worker_nos.insert(id, no);
    }

    pub(super) fn spec(&mut self, no: i64, spec: Arc<TaskSpec>) {
        if self.specs.len() >= SPECS_MAX {
            self.specs.clear();
            self.spec_nos.clear();
        }
        self.specs.insert(no, Arc::clone(&spec));
        self.spec_nos.insert(spec, no);
    }
}

/// One transaction in progress. It holds the statements that it used; they go back to the
/// connection's cache with it.
pub(super) struct Tx<'c> {
    connection: &'c Connection,
    pub(super) known: &'c mut Known,
    prepared: Vec<(&'static str, CachedStatement<'c>)>,
}

impl<'c> Tx<'c> {
    /// The statement with this text, which is one of a few constants.
    pub(super) fn statement(&mut self, sql: &'static str) -> Result<&mut Statement<'c>, Fault> {
        // Comparing addresses is enough: an equal text at another address is looked up again.
        let known = self.prepared.iter().position(|(text, _)| std::ptr::eq(*text, sql));
        let index = if let Some(index) = known {
            index
        } else {
            self.prepared.push((sql, self.connection.prepare_cached(sql)?));
            self.prepared.len() - 1
        };
        Ok(&mut self.prepared[index].1)
    }
}

/// Runs `work` in a transaction that is begun with `begin`, and commits it; on any failure nothing
/// of it is left.
pub(super) fn transaction<T>(
    connection: &Connection,
    known: &mut Known,
    begin: &str,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    connection.execute_batch(begin)?;
    let result = {
        let mut tx = Tx { connection, known: &mut *known, prepared: Vec::new() };
        work(&mut tx)
    };
    let result = result.and_then(|value| {
        connection.execute_batch("COMMIT")?;
        Ok(value)
    });
    if result.is_err() {
        *known = Known::default();
        // SQLite rolls some failures back by itself, a full disk among them.
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_failed_is_told_as_no_room_only_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("cloudai.db");
        let told = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            Fault::from(error).named(&store, "store events")
        };
        let full = dir.path().join("cloudai.room");
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC] {
            assert!(matches!(told(code), StoreError::Backend { .. }), "{code}");
            std::os::unix::fs::symlink("/dev/full", &full).unwrap();
            assert!(matches!(told(code), StoreError::Full { .. }), "{code}");
        }
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        assert!(matches!(told(ffi::SQLITE_IOERR_READ), StoreError::Backend { .. }));
    }
}
