//! An attempt's output on the worker's disk, between the executor that writes it and the pusher
//! that brings it to the master: a sequence of log records with a hard bound. The head is kept as
//! it comes; what is longer goes into a ring of segments, so that the end is kept too, and the gap
//! between them is counted and marked. It must never hold output in memory without bound, and never
//! fail a task because a log cannot be kept.
//!
//! A log that ended is the head, a record of what is missing, and the segments that are left, one
//! behind the other; its files are never joined, so that ending costs neither time nor disk. Its
//! head is then read-only, which is how a restarted worker knows that it ended. Read next:
//! `logs/disk.rs` (what is written), `logs/tail.rs` (the ring), `push.rs` (how it reaches the
//! master) and `cloudai_proto::log_record` (the bytes).

mod disk;
mod read;
mod seen;
mod tail;

use std::io;
use std::path::{Path, PathBuf};

use cloudai_model::Timestamp;
use cloudai_proto::log_record::LogStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use self::disk::{Bounds, Disk};
use self::read::{Extent, SpoolReader};

/// Output of a container that its log was given so far: kept, dropped, or refused by the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of its standard output.
    pub stdout_bytes: u64,
    /// Bytes of its standard error.
    pub stderr_bytes: u64,
}

/// The executor's end of an attempt's log. The file is made at the first byte. When it is dropped,
/// the log is finished as it is.
#[derive(Debug)]
pub struct LogWriter {
    state: State,
}

/// Where the files are: a write goes to a thread that may wait for the disk.
#[derive(Debug)]
enum State {
    Idle(Box<Disk>),
    Busy(JoinHandle<Box<Disk>>),
    Finished,
}

/// The pusher's end: how long the log is, and its bytes. When the writer is gone, the last length
/// is final.
#[derive(Debug, Clone)]
pub struct LogSpool {
    path: PathBuf,
    extent: watch::Receiver<Extent>,
    /// How much of it an earlier process left; `None` when there was none.
    found: Option<u64>,
}

/// Both ends of a new log that will be kept at `path`, and beside it when it is long; never more
/// than `bytes_max` on the disk.
pub fn open(path: PathBuf, bytes_max: u64) -> (LogWriter, LogSpool) {
    open_bounded(path, Bounds::of(bytes_max))
}

fn open_bounded(path: PathBuf, bounds: Bounds) -> (LogWriter, LogSpool) {
    let (extent, receiver) = watch::channel(Extent::default());
    let spool = LogSpool { path: path.clone(), extent: receiver, found: None };
    let disk = Disk::new(path, bounds, extent);
    (LogWriter { state: State::Idle(Box::new(disk)) }, spool)
}

/// Both ends of a log that an earlier process began at `path`, and how much output it had been
/// given. A record that was cut short is cut off; a log that was finished is final at once and
/// takes nothing more. Where there is no log, a new one begins. It reads what there is: to be
/// called where blocking is allowed.
pub fn reopen(path: PathBuf, bytes_max: u64) -> io::Result<(LogWriter, LogSpool, Copied)> {
    reopen_bounded(path, Bounds::of(bytes_max))
}

fn reopen_bounded(path: PathBuf, bounds: Bounds) -> io::Result<(LogWriter, LogSpool, Copied)> {
    let (extent, receiver) = watch::channel(Extent::default());
    let disk = Disk::reopen(path.clone(), bounds, extent)?;
    let found = Some(receiver.borrow().length());
    let spool = LogSpool { path, extent: receiver, found };
    let copied = disk.copied();
    let is_finished = disk.is_finished();
    let state = if is_finished { State::Finished } else { State::Idle(Box::new(disk)) };
    Ok((LogWriter { state }, spool, copied))
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

    /// Ends the log: when this returns, its length is final and its end can be read.
    pub async fn finish(&mut self) {
        let Some(disk) = self.take_disk().await else { return };
        // Its drop does the work; a runtime that shuts down does it as well.
        drop(spawn_blocking(move || drop(disk)).await);
    }

    /// The files, once no write is under way. Nothing is lost when this future is dropped.
    async fn take_disk(&mut self) -> Option<Box<Disk>> {
        if let State::Busy(writing) = &mut self.state {
            let written = writing.await;
            self.state = written.map_or(State::Finished, State::Idle);
        }
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Idle(disk) => Some(disk),
            State::Busy(_) | State::Finished => None,
        }
    }
}

impl LogSpool {
    /// Where the head is, once the log has a byte.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes could be read when an earlier process's log was opened again; `None` for a
    /// log of this process.
    pub(crate) fn found(&self) -> Option<u64> {
        self.found
    }

    /// How many bytes can be read now.
    pub fn length(&self) -> u64 {
        self.extent.borrow().length()
    }

    /// A reader of its bytes.
    pub(crate) fn reader(&self) -> SpoolReader {
        SpoolReader::new(self.path.clone(), self.extent.clone())
    }

    /// The log's length: now, or with `wait` once it has more than `read` bytes or is final.
    pub async fn wait_now_or_beyond(&mut self, wait: bool, read: u64) -> LogLength {
        if wait {
            return self.wait_beyond(read).await;
        }
        match self.extent.has_changed() {
            Ok(_) => LogLength::Open(self.length()),
            Err(_) => LogLength::Final(self.length()),
        }
    }

    /// Waits until the log has more than `read` bytes or is final, and gives its length.
    pub async fn wait_beyond(&mut self, read: u64) -> LogLength {
        let grown = self.extent.wait_for(|extent| extent.length() > read).await;
        match grown.map(|extent| extent.length()) {
            Ok(length) => LogLength::Open(length),
            Err(_) => LogLength::Final(self.length()),
        }
    }
}

/// How long a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLength {
    /// So far.
    Open(u64),
    /// For good: its writer is gone.
    Final(u64),
}

#[cfg(test)]
mod tests;
