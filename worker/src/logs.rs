//! An attempt's output on the worker's disk: one spool file of log records, which the executor
//! appends to and the pusher reads by offset. It must never hold output in memory without bound,
//! and never fail a task because a log cannot be kept: what is lost is marked. Read next:
//! `push.rs` (how it reaches the master) and `cloudai_proto::log_record` (the bytes).

use std::io;
use std::path::{Path, PathBuf};

use cloudai_model::Timestamp;
use cloudai_proto::log_record::{LogStream, encode};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::watch;

/// Most bytes of one attempt's log that are kept; what follows is marked as missing.
pub const LOG_BYTES_MAX: u64 = 256 << 20;

/// The executor's end of an attempt's log. The file is made at the first byte.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: Option<File>,
    length: watch::Sender<u64>,
    length_max: u64,
    /// Bytes that the disk refused since the last record that it took.
    refused: u64,
    /// Whether the bound was reached and marked.
    full: bool,
    buffer: Vec<u8>,
}

/// The pusher's end: where the file is and how long it is. When the writer is gone, the last
/// length is final.
#[derive(Debug, Clone)]
pub struct LogSpool {
    path: PathBuf,
    length: watch::Receiver<u64>,
}

/// Both ends of a log that will be kept at `path`.
pub fn open(path: PathBuf) -> (LogWriter, LogSpool) {
    open_bounded(path, LOG_BYTES_MAX)
}

fn open_bounded(path: PathBuf, length_max: u64) -> (LogWriter, LogSpool) {
    let (length, receiver) = watch::channel(0);
    let spool = LogSpool { path: path.clone(), length: receiver };
    let writer =
        LogWriter { path, file: None, length, length_max, refused: 0, full: false, buffer: vec![] };
    (writer, spool)
}

impl LogWriter {
    /// Appends output. It waits for the disk, so a container that floods is slowed down; it does
    /// not fail: what the disk refuses is counted and marked in front of what it next takes.
    pub async fn write(&mut self, stream: LogStream, at: Timestamp, bytes: &[u8]) {
        if self.full || bytes.is_empty() {
            return;
        }
        self.buffer.clear();
        if self.refused > 0 {
            let note = format!("{} bytes are missing here: the disk refused them", self.refused);
            encode(LogStream::Gap, at, note.as_bytes(), &mut self.buffer);
        }
        if *self.length.borrow() + (self.buffer.len() + bytes.len()) as u64 > self.length_max {
            let note =
                format!("the log is longer than {} bytes: the rest is not kept", self.length_max);
            encode(LogStream::Gap, at, note.as_bytes(), &mut self.buffer);
            self.full = true;
        } else {
            encode(stream, at, bytes, &mut self.buffer);
        }
        match self.append().await {
            Ok(()) => self.refused = 0,
            Err(error) => {
                if self.refused == 0 {
                    let path = self.path.display();
                    tracing::warn!("Output is lost: cannot write {path}: {error}");
                }
                self.refused += bytes.len() as u64;
                self.full = false;
            }
        }
    }

    /// Writes the buffer at the end of what is known to be whole, so that a record which a full
    /// disk cut short is overwritten by the next one.
    async fn append(&mut self) -> io::Result<()> {
        let whole = *self.length.borrow();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::create(&self.path).await?),
        };
        if self.refused > 0 {
            file.set_len(whole).await?;
            file.seek(io::SeekFrom::Start(whole)).await?;
        }
        file.write_all(&self.buffer).await?;
        file.flush().await?;
        self.length.send_replace(whole + self.buffer.len() as u64);
        Ok(())
    }
}

impl LogSpool {
    /// Where the file is, once it has a byte.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes are on disk now.
    pub fn length(&self) -> u64 {
        *self.length.borrow()
    }

    /// The log's length: now, or with `wait` once it has more than `read` bytes or is final.
    pub async fn wait_now_or_beyond(&mut self, wait: bool, read: u64) -> LogLength {
        if wait {
            return self.wait_beyond(read).await;
        }
        match self.length.has_changed() {
            Ok(_) => LogLength::Open(self.length()),
            Err(_) => LogLength::Final(self.length()),
        }
    }

    /// Waits until the log has more than `read` bytes or is final, and gives its length.
    pub async fn wait_beyond(&mut self, read: u64) -> LogLength {
        let length = self.length.wait_for(|length| *length > read).await.map(|length| *length);
        match length {
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
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use cloudai_proto::log_record::Decoder;

    fn read(path: &Path) -> String {
        let mut decoder = Decoder::default();
        decoder.push(&std::fs::read(path).unwrap());
        let mut text = String::new();
        while let Some(record) = decoder.next_record().unwrap() {
            let bytes = String::from_utf8_lossy(&record.bytes).into_owned();
            writeln!(text, "{:?} {bytes}", record.stream).unwrap();
        }
        assert_eq!(decoder.pending_len(), 0);
        text
    }

    #[tokio::test]
    async fn a_log_has_no_file_before_its_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut spool) = open(dir.path().join("log"));
        writer.write(LogStream::Stdout, Timestamp(1), b"").await;
        assert!(!spool.path().exists());
        writer.write(LogStream::Stdout, Timestamp(1), b"out").await;
        writer.write(LogStream::Stderr, Timestamp(2), b"err").await;
        assert_eq!(read(spool.path()), "Stdout out\nStderr err\n");
        assert_eq!(spool.wait_beyond(0).await, LogLength::Open(32));
        drop(writer);
        assert_eq!(spool.wait_beyond(32).await, LogLength::Final(32));
    }

    #[tokio::test]
    async fn at_its_bound_a_log_keeps_its_head_and_marks_the_gap() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, spool) = open_bounded(dir.path().join("log"), 40);
        for text in ["head", "more", "much longer than what is left"] {
            writer.write(LogStream::Stdout, Timestamp(1), text.as_bytes()).await;
        }
        writer.write(LogStream::Stdout, Timestamp(1), b"x").await;
        let want =
            "Stdout head\nStdout more\nGap the log is longer than 40 bytes: the rest is not kept\n";
        assert_eq!(read(spool.path()), want);
    }

    #[tokio::test]
    async fn what_the_disk_refused_is_counted_and_marked() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("not-yet");
        let (mut writer, spool) = open(place.join("log"));
        writer.write(LogStream::Stdout, Timestamp(1), b"lost").await;
        std::fs::create_dir(&place).unwrap();
        writer.write(LogStream::Stdout, Timestamp(2), b"kept").await;
        let want = "Gap 4 bytes are missing here: the disk refused them\nStdout kept\n";
        assert_eq!(read(spool.path()), want);
    }
}
