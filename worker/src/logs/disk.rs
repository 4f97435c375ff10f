//! The files of one log, written by one thread at a time: the head first, then the ring of its
//! tail. What the disk refuses is counted, and marked in front of what it next takes, or at the
//! end. It must never leave a part of a record among what can be read. Read next: `tail.rs`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cloudai_model::Timestamp;
use cloudai_proto::log_record::{LogStream, RECORD_LEN_MAX, encode};
use tokio::sync::watch;

use super::Copied;
use super::read::{Extent, Found, Part};
use super::seen::Seen;
use super::tail::{Appender, Head, SEGMENTS, Scan, Tail, scan};
use crate::clock;

/// Room that the head leaves for our own notes.
const NOTES_BYTES: u64 = 1 << 10;

/// How much a log may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All of it; said in the notes.
    pub(super) all: u64,
    /// The head, without our notes.
    pub(super) head: u64,
    /// Each segment of the tail.
    pub(super) segment: u64,
}

impl Bounds {
    /// Three quarters for the head, the rest for the ring.
    pub(super) fn of(all: u64) -> Self {
        let tail = all / 4;
        Self { all, head: all - tail - NOTES_BYTES, segment: tail / SEGMENTS }
    }
}

/// The files.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    bounds: Bounds,
    extent: watch::Sender<Extent>,
    head: Option<Appender>,
    tail: Option<Tail>,
    /// Output that is on the disk, or of which it says that it is missing.
    seen: Seen,
    /// Output that the disk refused since it last took something.
    refused: Seen,
    /// What is to be stored next, and scratch space for its records.
    input: (LogStream, Timestamp, Vec<u8>),
    records: Vec<u8>,
    /// The note at the end that the disk has yet to take.
    last_note: Vec<u8>,
    /// Why what an earlier process left cannot be read.
    unread: Option<io::Error>,
}

impl Disk {
    pub(super) fn new(path: PathBuf, bounds: Bounds, extent: watch::Sender<Extent>) -> Self {
        Self {
            path,
            bounds,
            extent,
            head: None,
            tail: None,
            seen: Seen::default(),
            refused: Seen::default(),
            input: (LogStream::Gap, Timestamp(0), Vec::new()),
            records: Vec::new(),
            last_note: Vec::new(),
            unread: None,
        }
    }

    /// See [`super::reopen`].
    pub(super) fn reopen(path: PathBuf, bounds: Bounds, extent: watch::Sender<Extent>) -> Self {
        let mut disk = Self::new(path, bounds, extent);
        match Left::find(&disk.path, bounds) {
            Ok(Some(left)) => disk.take_up(left),
            Ok(None) => {}
            Err(error) => {
                let path = disk.path.display();
                tracing::warn!("The log {path} begins anew: it cannot be read: {error}");
                disk.unread = Some(error);
            }
        }
        disk.extent.send_modify(|extent| extent.found = Found::Bytes(extent.length()));
        disk
    }

    fn take_up(&mut self, left: Left) {
        let Left { head_length, head, tail, seen } = left;
        let is_finished = head.is_none();
        (self.head, self.tail, self.seen) = (head, tail, seen);
        self.extent.send_modify(|extent| extent.head = head_length);
        if is_finished {
            self.show();
        }
    }

    pub(super) fn copied(&self) -> Copied {
        self.seen.into()
    }

    /// Whether all of it is shown: it takes nothing more.
    pub(super) fn is_final(&self) -> bool {
        self.extent.borrow().is_final
    }

    /// Takes what is to be stored next; cheap.
    pub(super) fn load(&mut self, stream: LogStream, at: Timestamp, bytes: &[u8]) {
        let (of, when, input) = &mut self.input;
        (*of, *when) = (stream, at);
        input.clear();
        input.extend_from_slice(bytes);
    }

    /// Stores what was loaded; waits for the disk.
    pub(super) fn store(&mut self) {
        if self.is_final() {
            return;
        }
        let (stream, at, input) = &mut self.input;
        let (stream, at, input) = (*stream, *at, std::mem::take(input));
        for piece in input.chunks(RECORD_LEN_MAX) {
            let refused = std::mem::take(&mut self.refused);
            let mut seen = Seen::of(stream, piece);
            seen.add(refused);
            self.records.clear();
            self.note_refused(refused, at);
            encode(stream, at, piece, &mut self.records);
            match self.append(seen, at) {
                Ok(()) => self.seen.add(seen),
                Err(error) => {
                    if refused.is_nothing() {
                        warn_lost(&self.path, &error);
                    }
                    self.refused = seen;
                }
            }
        }
        self.input.2 = input;
    }

    fn note_refused(&mut self, refused: Seen, at: Timestamp) {
        if !refused.is_nothing() {
            let words = refused.words("the disk refused them");
            encode(LogStream::Gap, at, words.as_bytes(), &mut self.records);
        }
    }

    /// Appends the records to what is known to be whole.
    fn append(&mut self, seen: Seen, at: Timestamp) -> io::Result<()> {
        let records = std::mem::take(&mut self.records);
        let fits = self.head_length() + records.len() as u64 <= self.bounds.head;
        let appended = match &mut self.tail {
            Some(tail) => tail.append(&records, seen, at),
            None if fits => self.append_head(&records),
            None => self.begin_tail(at).and_then(|tail| tail.append(&records, seen, at)),
        };
        self.records = records;
        appended
    }

    fn head_length(&self) -> u64 {
        self.head.as_ref().map_or(0, Appender::length)
    }

    fn append_head(&mut self, records: &[u8]) -> io::Result<()> {
        let head = if let Some(head) = &mut self.head {
            head
        } else {
            // What an earlier attempt of this name left is none of this one's.
            super::remove(&self.path)?;
            self.head.insert(Appender::create(&self.path)?)
        };
        head.append(records)?;
        let length = head.length();
        // A final one shows the same bytes already, as a note from memory.
        self.extent.send_if_modified(|extent| {
            let grows = !extent.is_final;
            if grows {
                extent.head = length;
            }
            grows
        });
        Ok(())
    }

    /// The head is full: those who follow the log are told why it stands still.
    fn begin_tail(&mut self, at: Timestamp) -> io::Result<&mut Tail> {
        let words = format!(
            "the log grows beyond its bound of {} bytes: its end follows when the task has ended",
            self.bounds.all
        );
        let mut notice = Vec::new();
        encode(LogStream::Gap, at, words.as_bytes(), &mut notice);
        self.append_head(&notice)?;
        let head = Head { length: self.head_length(), seen: self.seen };
        Ok(self.tail.insert(Tail::new(self.path.clone(), self.bounds.segment, head)))
    }

    /// Shows the whole of the log and ends it for good, unless the disk does not take its end: to
    /// be tried again, for the next process would miss it.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if !self.is_final() {
            self.show();
        }
        self.store_last_note()?;
        if self.head.is_some()
            && let Err(error) = make_read_only(&self.path)
        {
            tracing::debug!("Cannot mark {} as finished: {error}", self.path.display());
        }
        Ok(())
    }

    /// Shows the whole of the log as it is.
    fn show(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        self.records.clear();
        // What came meanwhile came from the engine's record, and stands for it.
        if let (Some(error), None) = (&self.unread, &self.head) {
            let words = format!("what an earlier process kept of the log cannot be read: {error}");
            encode(LogStream::Gap, clock::wall(), words.as_bytes(), &mut self.records);
        }
        self.note_refused(refused, clock::wall());
        self.last_note = std::mem::take(&mut self.records);
        let mut rest = Vec::new();
        // What the disk still refuses is told all the same: the note is read from memory.
        if self.store_last_note().is_err() {
            rest.push(Part::Note(self.last_note.clone()));
        }
        if let Some(tail) = &self.tail {
            let missing = tail.missing().map(|(missing, at)| {
                let why = format!("the log is longer than {} bytes", self.bounds.all);
                let mut note = Vec::new();
                encode(LogStream::Gap, at, missing.words(&why).as_bytes(), &mut note);
                Part::Note(note)
            });
            rest.splice(0..0, missing.into_iter().chain(tail.parts()));
        }
        self.extent.send_modify(|extent| {
            (extent.rest, extent.is_final) = (rest.into(), true);
        });
    }

    /// Nothing that is shown moves: the note may go beyond the bounds, which leave room for it.
    fn store_last_note(&mut self) -> io::Result<()> {
        let note = std::mem::take(&mut self.last_note);
        let stored = match &mut self.tail {
            _ if note.is_empty() => Ok(()),
            Some(tail) => tail.append_last(&note, clock::wall()),
            None => self.append_head(&note),
        };
        if stored.is_err() {
            self.last_note = note;
        }
        stored
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.is_final() {
            self.show();
        }
    }
}

/// What an earlier process left of a log that has a head.
struct Left {
    /// Of whole records.
    head_length: u64,
    /// `None` when the log is finished.
    head: Option<Appender>,
    tail: Option<Tail>,
    seen: Seen,
}

impl Left {
    /// Reads what there is at `path`.
    fn find(path: &Path, bounds: Bounds) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let tail = Tail::find(path, bounds.segment)?;
        let mut tail = tail.filter(|tail| tail.head().length <= metadata.len());
        let (head_length, seen) = if let Some(tail) = &tail {
            (tail.head().length, tail.seen())
        } else {
            let Scan { whole, seen } = scan(&mut file)?;
            (whole, seen)
        };
        if metadata.permissions().readonly() {
            return Ok(Some(Self { head_length, head: None, tail, seen }));
        }
        let head = Some(Appender::open(path, head_length)?);
        if let Some(tail) = &mut tail {
            tail.reopen()?;
        }
        Ok(Some(Self { head_length, head, tail, seen }))
    }
}

fn make_read_only(path: &Path) -> io::Result<()> {
    let mut permissions = std::fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(path, permissions)
}

fn warn_lost(path: &Path, error: &io::Error) {
    tracing::warn!("Output is lost: cannot write {}: {error}", path.display());
}
