//! The default backend: one SQLite file in the data directory, with a write-ahead log and a
//! durable commit. One connection writes; each reader has one of its own.
//!
//! It must never be opened by two masters (`lock.rs`), never lose what a commit answered, and
//! never repair what it does not understand. Read next: `schema.sql`, then `write.rs`.

mod backup;
mod codec;
#[cfg(test)]
mod faults;
mod lock;
mod open;
mod read;
mod spec_row;
#[cfg(test)]
mod tests;
mod tx;
mod write;

use std::path::{Path, PathBuf};

use cloudai_model::{Event, JobId, JobShape, Journal, RequestId, Snapshot, TaskId, TaskRecord};
use rusqlite::Connection;

pub use self::backup::{StoreCopy, copy_store};
pub use self::lock::DirLock;
use self::tx::{Fault, Known, Tx, transaction};
use crate::rows::Rows;
use crate::{
    JobPage, JobQuery, JobView, LostAttempt, Reader, StatusCounts, Store, StoreError, TaskPage,
    TaskQuery, page, turn, view,
};

/// The file's name in the data directory.
const FILE_NAME: &str = "cloudai.db";

/// One connection to the file, with what it knows without asking.
#[derive(Debug)]
struct Access {
    connection: Connection,
    known: Known,
    path: PathBuf,
}

impl Access {
    fn new(connection: Connection, path: PathBuf) -> Self {
        Self { connection, known: Known::default(), path }
    }

    /// Runs `work` in a transaction that is begun with `begin`.
    fn run<T>(
        &mut self,
        begin: &str,
        doing: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        transaction(&self.connection, &mut self.known, begin, work)
            .map_err(|fault| fault.named(&self.path, doing))
    }

    /// Runs `work` at one moment of the store.
    fn read<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.run("BEGIN", doing, work)
    }
}

/// The embedded store. Dropping it moves the log into the file and lets go of the directory.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Access,
    // Last, so that the directory is free only after the file is closed.
    _lock: DirLock,
}

impl SqliteStore {
    /// Opens or makes the store in a data directory, which is made when it is not there.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| StoreError::Io {
            doing: "make the data directory",
            path: dir.to_owned(),
            source,
        })?;
        let lock = DirLock::take(dir)?;
        let path = dir.join(FILE_NAME);
        let connection = open::open_writer(dir, &path)?;
        Ok(Self { writer: Access::new(connection, path), _lock: lock })
    }
}

impl Journal for SqliteStore {
    type Error = StoreError;

    fn commit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.writer.run("BEGIN IMMEDIATE", "store events", |tx| {
            let changes = turn::changes(tx, events)?;
            tx.write(&changes)
        })
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.writer.read("load the store", |tx| view::load(tx))
    }

    fn find_request(
        &mut self,
        request: &RequestId,
    ) -> Result<Option<(JobId, JobShape)>, StoreError> {
        let job = self.writer.read("find a request", |tx| tx.find_request(request))?;
        Ok(job.map(|job| (job.id, job.shape)))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        let path = self.writer.path.clone();
        Ok(Box::new(Access::new(open::open_reader(&path)?, path)))
    }

    fn describe(&self) -> String {
        format!("SQLite {}", self.writer.path.display())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // A close that does not come about loses nothing: the log is as durable as the file, and
        // is read at the next start.
        let _ = open::mark_in_use(&self.writer.connection, false)
            .and_then(|()| self.writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
    }
}

impl Reader for Access {
    fn find_task(&mut self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.read("find a task", |tx| view::find_task(tx, task))
    }

    fn find_job(&mut self, job: JobId) -> Result<Option<JobView>, StoreError> {
        self.read("find a job", |tx| view::find_job(tx, job))
    }

    fn jobs(&mut self, query: &JobQuery) -> Result<JobPage, StoreError> {
        self.read("list jobs", |tx| page::jobs(tx, query))
    }

    fn tasks(&mut self, query: &TaskQuery) -> Result<TaskPage, StoreError> {
        self.read("list tasks", |tx| page::tasks(tx, query))
    }

    fn counts(&mut self) -> Result<StatusCounts, StoreError> {
        self.read("count tasks", |tx| Ok(tx.cluster()?.counts))
    }

    fn attempts(&mut self, task: TaskId) -> Result<Vec<LostAttempt>, StoreError> {
        self.read("list attempts", |tx| view::attempts(tx, task))
    }
}
