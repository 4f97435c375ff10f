//! An attempt's output on the worker's disk, between the executor that writes it and the pusher
//! that brings it to the master: a sequence of log records with a hard bound. The head is kept as
//! it comes; what is longer goes into a ring of segments, so that the end is kept too, and the gap
//! between them is counted and marked. It must never hold output in memory without bound, and never
//! fail a task because a log cannot be kept.
//!
//! A log that ended is the head, a record of what is missing, and the segments that are left, one
//! behind the other; its files are never joined, so that ending costs neither time nor disk. Its
//! head is read-only once the disk has all of that, which is how a restarted worker knows that it
//! ended. Read next:
//! `logs/disk.rs` (what is written), `logs/tail.rs` (the ring), `push.rs` (how it reaches the
//! master) and `cloudai_proto::log_record` (the bytes).

mod disk;
mod read;
mod seen;
mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloudai_model::Timestamp;
use cloudai_proto::log_record::LogStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use self::disk::{Bounds, Disk};
use self::read::{Extent, Found, SpoolReader};

/// Output of a container that its log was given so far: kept, dropped, or refused by the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of its standard output.
    pub stdout_bytes: u64,
    /// Bytes of its standard error.
    pub stderr_bytes: u64,
}

/// The executor's end of an attempt's log. The file is made at the first byte. When it is dropped,
/// nothing more comes from this process; only `finish` ends the log for the next one too.
#[derive(Debug)]
pub struct LogWriter {
    state: State,
}

/// Where the files are: a write goes to a thread that may wait for the disk.
#[derive(Debug)]
enum State {
    /// What an earlier process left is being read; nothing when it was finished.
    Opening(JoinHandle<Option<Box<Disk>>>),
    Idle(Box<Disk>),
    Busy(JoinHandle<Box<Disk>>),
    Finished,
}

/// The pusher's end: how long the log is, and its bytes. When the writer has ended it, or is gone,
/// the last length is final.
#[derive(Debug, Clone)]
pub struct LogSpool {
    path: PathBuf,
    extent: watch::Receiver<Extent>,
}

/// Both ends of a new log that will be kept at `path`, and beside it when it is long; never more
/// than `bytes_max` on the disk.
pub fn open(path: PathBuf, bytes_max: u64) -> (LogWriter, LogSpool) {
    open_bounded(path, Bounds::of(bytes_max))
}

fn open_bounded(path: PathBuf, bounds: Bounds) -> (LogWriter, LogSpool) {
    let (extent, receiver) = watch::channel(Extent::default());
    let spool = LogSpool { path: path.clone(), extent: receiver };
    let disk = Disk::new(path, bounds, extent);
    (LogWriter { state: State::Idle(Box::new(disk)) }, spool)
}

/// Both ends of a log that an earlier process began at `path`. A record that was cut short is cut
/// off; a log that was finished is final and takes nothing more. Where there is no log, or none
/// that can be read, a new one begins.
///
/// What there is must be read, which takes a while: that is done beside, with one of `reads`, and
/// whoever writes or reads the log meanwhile waits for it.
pub fn reopen(path: PathBuf, bytes_max: u64, reads: &Arc<Semaphore>) -> (LogWriter, LogSpool) {
    reopen_bounded(path, Bounds::of(bytes_max), reads)
}

fn reopen_bounded(path: PathBuf, bounds: Bounds, reads: &Arc<Semaphore>) -> (LogWriter, LogSpool) {
    let (extent, receiver) = watch::channel(Extent { found: Found::Unknown, ..Extent::default() });
    let spool = LogSpool { path: path.clone(), extent: receiver };
    let reads = Arc::clone(reads);
    let opening = tokio::spawn(async move {
        let _read = reads.acquire_owned().await;
        let disk = spawn_blocking(move || Disk::reopen(path, bounds, extent)).await.ok()?;
        (!disk.is_final()).then(|| Box::new(disk))
    });
    (LogWriter { state: State::Opening(opening) }, spool)
}

/// Removes a log with all its files. What is not there needs no removing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for path in files(path) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
            _ => {}
        }
    }
    result
}

/// Waits until a log is safe on the disk, with all its files that are there.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    for path in files(path) {
        match std::fs::File::open(path) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Every file that a log may have, its head last.
fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    let segments = (0..tail::SEGMENTS).map(|slot| tail::slot_path(path, slot));
    segments.chain([path.to_owned()])
}

impl LogWriter {
    /// How much output an earlier process gave it, once that is known; nothing for a log that was
    /// finished.
    pub async fn copied(&mut self) -> Copied {
        let Some(disk) = self.take_disk().await else { return Copied::default() };
        let copied = disk.copied();
        self.state = State::Idle(disk);
        copied
    }

    /// Appends output. It waits for the disk, so a container that floods is slowed down; it does
    /// not fail: what the disk refuses is counted and marked in front of what it next takes. When
    /// its future is dropped, the bytes are written nevertheless.
    pub async fn write(&mut self, stream: LogStream, at: Timestamp, bytes: &[u8]) {
        let Some(mut disk) = self.take_disk().await else { return };
        disk.load(stream, at, bytes);
        self.state = State::Busy(spawn_blocking(move || {
            disk.store();
            disk
        }));
        if let Some(disk) = self.take_disk().await {
            self.state = State::Idle(disk);
        }
    }

    /// Ends the log: when this returns, its length is final and its end can be read. An error says
    /// that the disk does not take the mark of what it refused before: the log is not ended for the
    /// next process, until this is called again and goes well.
    pub async fn finish(&mut self) -> io::Result<()> {
        let Some(mut disk) = self.take_disk().await else { return Ok(()) };
        let finishing = spawn_blocking(move || {
            let finished = disk.finish();
            (disk, finished)
        });
        // Without an answer only when the runtime ends; the next process then goes on with the log.
        let (disk, finished) = finishing.await.map_err(io::Error::other)?;
        if finished.is_err() {
            self.state = State::Idle(disk);
        }
        finished
    }

    /// Hands the log on; nothing more is written here.
    pub(crate) fn take(&mut self) -> Self {
        Self { state: std::mem::replace(&mut self.state, State::Finished) }
    }

    /// The files, once no write is under way. Nothing is lost when this future is dropped.
    async fn take_disk(&mut self) -> Option<Box<Disk>> {
        let disk = match &mut self.state {
            State::Opening(opening) => opening.await.ok().flatten(),
            State::Busy(writing) => writing.await.ok(),
            State::Idle(_) | State::Finished => None,
        };
        match (disk, std::mem::replace(&mut self.state, State::Finished)) {
            (None, State::Idle(disk)) | (Some(disk), _) => Some(disk),
            (None, _) => None,
        }
    }
}

impl LogSpool {
    /// Where the head is, once the log has a byte.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes an earlier process left, once that is known; `None` for a log of this
    /// process.
    pub(crate) async fn found(&self) -> Option<u64> {
        let mut extent = self.extent.clone();
        let known = extent.wait_for(|extent| extent.found != Found::Unknown).await;
        match known.map_or(Found::Unknown, |extent| extent.found) {
            Found::Nothing => None,
            Found::Bytes(bytes) => Some(bytes),
            // The process ends.
            Found::Unknown => Some(0),
        }
    }

    /// How many bytes can be read now; none while what an earlier process left is not known.
    pub fn length(&self) -> u64 {
        self.extent.borrow().length()
    }

    /// A reader of its bytes.
    pub(crate) fn reader(&self) -> SpoolReader {
        SpoolReader::new(self.path.clone(), self.extent.clone())
    }

    /// The log's length: as soon as it is known, or with `wait` once it has more than `read` bytes
    /// or is final.
    pub async fn wait_now_or_beyond(&mut self, wait: bool, read: u64) -> LogLength {
        if wait {
            return self.wait_beyond(read).await;
        }
        self.found().await;
        // Gone without a final length is its writer only when the process ends.
        if self.extent.has_changed().is_err() || self.extent.borrow().is_final {
            LogLength::Final(self.length())
        } else {
            LogLength::Open(self.length())
        }
    }

    /// Waits until the log has more than `read` bytes or is final, and gives its length.
    pub async fn wait_beyond(&mut self, read: u64) -> LogLength {
        let is_due = |extent: &Extent| extent.is_final || extent.length() > read;
        match self.extent.wait_for(is_due).await.map(|extent| extent.length()) {
            Ok(length) if length > read => LogLength::Open(length),
            Ok(length) => LogLength::Final(length),
            Err(_) => LogLength::Final(self.length()),
        }
    }
}

/// How long a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLength {
    /// So far.
    Open(u64),
    /// For good: its writer ended it, or is gone.
    Final(u64),
}

#[cfg(test)]
mod tests;
