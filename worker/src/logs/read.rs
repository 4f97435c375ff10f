//! The bytes of a log that can be read: while it is written its head, afterwards the head and what
//! follows it, as one sequence. It must never give out a byte that may still change.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::watch;

/// A stretch of a log behind its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// So many bytes of a file.
    File { path: PathBuf, from: u64, length: u64 },
    /// A note that need not be on the disk.
    Note(Vec<u8>),
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Note(bytes) => bytes.len() as u64,
        }
    }
}

/// What an earlier process left of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: the log is this process's.
    #[default]
    Nothing,
    /// It is not looked at yet.
    Unknown,
    /// So many bytes.
    Bytes(u64),
}

/// How much of a log can be read: its head, and once it is final the rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Extent {
    pub(super) found: Found,
    pub(super) head: u64,
    pub(super) rest: Arc<[Part]>,
    /// Whether all of it is here and nothing of it changes any more.
    pub(super) is_final: bool,
}

impl Extent {
    pub(super) fn length(&self) -> u64 {
        self.head + self.rest.iter().map(Part::length).sum::<u64>()
    }

    /// The part of the rest in which `offset` lies, and where in it.
    fn find(&self, offset: u64) -> Option<(usize, u64)> {
        let mut begin = self.head;
        for (index, part) in self.rest.iter().enumerate() {
            let end = begin + part.length();
            if (begin..end).contains(&offset) {
                return Some((index, offset - begin));
            }
            begin = end;
        }
        None
    }
}

/// Reads a log at any offset, with one file open at a time.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    head: PathBuf,
    extent: watch::Receiver<Extent>,
    open: Option<(PathBuf, File)>,
}

impl SpoolReader {
    pub(super) fn new(head: PathBuf, extent: watch::Receiver<Extent>) -> Self {
        Self { head, extent, open: None }
    }

    /// The bytes at `offset`: at least one and at most `length_max`, none at the end.
    pub(crate) async fn read(&mut self, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        let extent = self.extent.borrow().clone();
        if offset < extent.head {
            let path = self.head.clone();
            return self.read_file(path, offset, extent.head - offset, length_max).await;
        }
        let Some((index, at)) = extent.find(offset) else { return Ok(Vec::new()) };
        match &extent.rest[index] {
            Part::File { path, from, length } => {
                self.read_file(path.clone(), from + at, length - at, length_max).await
            }
            Part::Note(bytes) => {
                Ok(bytes.iter().skip(at as usize).take(length_max).copied().collect())
            }
        }
    }

    async fn read_file(
        &mut self,
        path: PathBuf,
        from: u64,
        left: u64,
        length_max: usize,
    ) -> io::Result<Vec<u8>> {
        let mut file = match self.open.take() {
            Some((open, file)) if open == path => file,
            _ => File::open(&path).await?,
        };
        let mut bytes = vec![0; left.min(length_max as u64) as usize];
        file.seek(SeekFrom::Start(from)).await?;
        file.read_exact(&mut bytes).await?;
        self.open = Some((path, file));
        Ok(bytes)
    }
}
