//! The end of a log that is longer than its head: a ring of segment files beside it, of which the
//! newest are kept. A segment begins and ends at a record's border, and its header says how much
//! output came before it, so that what was dropped is known after any restart. Ours alone reads it:
//! its layout may change with any version that also changes `MAGIC`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cloudai_model::Timestamp;
use cloudai_proto::log_record::Decoder;

use super::read::Part;
use super::seen::Seen;

/// Files of the ring. All but one are full whenever something was dropped.
pub(super) const SEGMENTS: u64 = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"CloudLT1");
const HEADER_NUMBERS: usize = 10;
const HEADER_LEN: usize = HEADER_NUMBERS * size_of::<u64>();

/// Where the segments of the log at `path` are.
pub(super) fn slot_path(path: &Path, slot: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".tail{slot}"));
    PathBuf::from(name)
}

/// A file that only grows by whole records.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    length: u64,
}

impl Appender {
    /// A new, empty file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, length: 0 })
    }

    /// A file of which `length` bytes are whole; what follows is cut off.
    pub(super) fn open(path: &Path, length: u64) -> io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        file.set_len(length)?;
        Ok(Self { file, length })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes all or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(bytes, self.length) {
            // Should this fail as well, the next record overwrites what is left of this one.
            drop(self.file.set_len(self.length));
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// The head of a log that went beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u64,
    pub(super) seen: Seen,
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// Its number; the first has 0.
    sequence: u64,
    head: Head,
    /// All output before it, from the first byte of the log.
    before: Seen,
    /// When its first record was read.
    at: Timestamp,
}

impl Header {
    fn bytes(self) -> Vec<u8> {
        let Self { sequence, head, before, at } = self;
        let numbers: [u64; HEADER_NUMBERS] = [
            MAGIC,
            sequence,
            head.length,
            head.seen.stdout,
            head.seen.stderr,
            head.seen.lines,
            before.stdout,
            before.stderr,
            before.lines,
            at.unix_ms(),
        ];
        numbers.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// The header of a segment file; `None` when its writer did not get so far.
    fn read(file: &mut File) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_LEN];
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let mut numbers = [0; HEADER_NUMBERS];
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        let [magic, sequence, length, n3, n4, n5, n6, n7, n8, at] = numbers;
        let seen = Seen { stdout: n3, stderr: n4, lines: n5 };
        let before = Seen { stdout: n6, stderr: n7, lines: n8 };
        let at = Timestamp(at);
        Ok((magic == MAGIC).then_some(Self { sequence, head: Head { length, seen }, before, at }))
    }
}

/// A segment that is kept.
#[derive(Debug)]
struct Segment {
    header: Header,
    /// With its header.
    length: u64,
    /// The output in it.
    seen: Seen,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    segment_bytes_max: u64,
    head: Head,
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    current: Option<Appender>,
    next_sequence: u64,
}

impl Tail {
    /// The tail of the log at `path`, whose head is full.
    pub(super) fn new(path: PathBuf, segment_bytes_max: u64, head: Head) -> Self {
        let segments = VecDeque::new();
        Self { path, segment_bytes_max, head, segments, current: None, next_sequence: 0 }
    }

    /// What an earlier process left of a tail, if the log at `path` had one.
    pub(super) fn find(path: &Path, segment_bytes_max: u64) -> io::Result<Option<Self>> {
        let mut segments = Vec::new();
        for slot in 0..SEGMENTS {
            let mut file = match File::open(slot_path(path, slot)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let Some(header) = Header::read(&mut file)? else { continue };
            let Scan { whole, seen } = scan(&mut file)?;
            segments.push(Segment { header, length: HEADER_LEN as u64 + whole, seen });
        }
        segments.sort_by_key(|segment| segment.header.sequence);
        let Some(newest) = segments.last() else { return Ok(None) };
        let (head, last) = (newest.header.head, newest.header.sequence);
        // One whose neighbour is gone does not belong to the end any more.
        let count = segments.len() as u64;
        let belongs = |(index, segment): (usize, Segment)| {
            (segment.header.sequence + count == last + 1 + index as u64).then_some(segment)
        };
        let segments = segments.into_iter().enumerate().filter_map(belongs).collect();
        let mut tail = Self::new(path.to_owned(), segment_bytes_max, head);
        (tail.segments, tail.next_sequence) = (segments, last + 1);
        Ok(Some(tail))
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// All output up to the end.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = self.head.seen;
        if let Some(last) = self.segments.back() {
            seen = last.header.before;
            seen.add(last.seen);
        }
        seen
    }

    /// Goes on where an earlier process stopped.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(last) = self.segments.back() {
            let path = slot_path(&self.path, last.header.sequence % SEGMENTS);
            self.current = Some(Appender::open(&path, last.length)?);
        }
        Ok(())
    }

    /// Appends whole records that stand for `seen`, of which the first was read at `at`.
    pub(super) fn append(&mut self, bytes: &[u8], seen: Seen, at: Timestamp) -> io::Result<()> {
        let length = bytes.len() as u64;
        let has_room = |current: &Appender| current.length() + length <= self.segment_bytes_max;
        if !self.current.as_ref().is_some_and(has_room) {
            self.rotate(at)?;
        }
        if let (Some(current), Some(last)) = (&mut self.current, self.segments.back_mut()) {
            current.append(bytes)?;
            last.length = current.length();
            last.seen.add(seen);
        }
        Ok(())
    }

    /// Appends the last record, which may go beyond a segment's bound: nothing is dropped for it.
    pub(super) fn append_last(&mut self, record: &[u8], at: Timestamp) -> io::Result<()> {
        if self.current.is_none() {
            self.rotate(at)?;
        }
        if let (Some(current), Some(last)) = (&mut self.current, self.segments.back_mut()) {
            current.append(record)?;
            last.length = current.length();
        }
        Ok(())
    }

    /// Begins a new segment in place of the oldest.
    fn rotate(&mut self, at: Timestamp) -> io::Result<()> {
        let sequence = self.next_sequence;
        let header = Header { sequence, head: self.head, before: self.seen(), at };
        self.current = None;
        if self.segments.len() as u64 == SEGMENTS {
            self.segments.pop_front();
        }
        let mut current = Appender::create(&slot_path(&self.path, sequence % SEGMENTS))?;
        current.append(&header.bytes())?;
        let length = current.length();
        self.segments.push_back(Segment { header, length, seen: Seen::default() });
        self.current = Some(current);
        self.next_sequence += 1;
        Ok(())
    }

    /// What was dropped between the head and the segments that are left, and when these begin.
    pub(super) fn missing(&self) -> Option<(Seen, Timestamp)> {
        let header = self.segments.front()?.header;
        let missing = header.before.since(self.head.seen);
        (!missing.is_nothing()).then_some((missing, header.at))
    }

    /// The segments as parts of the log.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        self.segments.iter().map(|segment| Part::File {
            path: slot_path(&self.path, segment.header.sequence % SEGMENTS),
            from: HEADER_LEN as u64,
            length: segment.length - HEADER_LEN as u64,
        })
    }
}

/// What a file holds from where it is read on.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes of whole records.
    pub(super) whole: u64,
    /// The output that they stand for.
    pub(super) seen: Seen,
}

/// Reads records to the end, or to what is none.
pub(super) fn scan(file: &mut File) -> io::Result<Scan> {
    let (mut decoder, mut scan) = (Decoder::default(), Scan::default());
    let (mut piece, mut pushed) = (vec![0; 128 << 10], 0);
    loop {
        let count = file.read(&mut piece)?;
        decoder.push(&piece[..count]);
        pushed += count as u64;
        let is_damaged = loop {
            match decoder.next_record() {
                Ok(Some(record)) => scan.seen.add(Seen::behind(record.stream, &record.bytes)),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        scan.whole = pushed - decoder.pending_len() as u64;
        if count == 0 || is_damaged {
            return Ok(scan);
        }
    }
}
