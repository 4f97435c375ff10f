//! The bytes of tasks, beside the core: logs, notes and output files, one directory an attempt.
//!
//! `<data>/tasks/<job>/<position>-a<attempt>/{log,notes,output/…}`; each is made with its first
//! byte, so that a task that says nothing costs nothing. `log` and `notes` are sequences of log
//! records (see `cloudai_proto::log_record`).

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cloudai_model::{AttemptId, Timestamp};
use cloudai_proto::log_record::{LogStream, encode};
use tokio::sync::watch;

/// Largest log of one attempt on the master, in bytes. The worker's own bound is lower; this one
/// holds against a worker that lies.
pub(crate) const LOG_LEN_MAX: u64 = 512 << 20;
/// Largest file of notes of one attempt, in bytes.
const NOTES_LEN_MAX: u64 = 256 << 10;

/// The directory of all tasks.
#[derive(Debug)]
pub(crate) struct TaskFiles {
    root: PathBuf,
    watched: Mutex<HashMap<AttemptId, watch::Sender<u64>>>,
    /// Held while a note is written: notes of one attempt may come at once.
    noting: Mutex<()>,
    /// How many logs were kept whole, for names of their parts.
    wholes: AtomicU64,
}

impl TaskFiles {
    /// Uses `<data_dir>/tasks`.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("tasks"),
            watched: Mutex::default(),
            noting: Mutex::default(),
            wholes: AtomicU64::new(0),
        }
    }

    fn attempt_dir(&self, attempt: AttemptId) -> PathBuf {
        let task = attempt.task;
        let name = format!("{}-a{}", task.position(), attempt.no.0);
        self.root.join(task.job.0.to_string()).join(name)
    }

    /// Where the attempt's log is, if it has one.
    pub(crate) fn log_path(&self, attempt: AttemptId) -> PathBuf {
        self.attempt_dir(attempt).join("log")
    }

    /// Where the attempt's notes are, if it has any.
    pub(crate) fn notes_path(&self, attempt: AttemptId) -> PathBuf {
        self.attempt_dir(attempt).join("notes")
    }

    /// Where the attempt's output files are, if it has any.
    pub(crate) fn output_dir(&self, attempt: AttemptId) -> PathBuf {
        self.attempt_dir(attempt).join("output")
    }

    /// The stored length of the attempt's log, as it grows.
    pub(crate) fn watch_log(&self, attempt: AttemptId) -> watch::Receiver<u64> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, sender| sender.receiver_count() > 0);
        let length = self.log_len(attempt).unwrap_or(0);
        watched.entry(attempt).or_insert_with(|| watch::channel(length).0).subscribe()
    }

    /// How many bytes of the attempt's log are stored.
    pub(crate) fn log_len(&self, attempt: AttemptId) -> io::Result<u64> {
        match std::fs::metadata(self.log_path(attempt)) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Appends the piece that begins at `offset`, as far as it is new, and gives the stored
    /// length. A piece that begins behind the end is left out: the worker begins again from there.
    pub(crate) fn append_log(
        &self,
        attempt: AttemptId,
        offset: u64,
        data: &[u8],
    ) -> io::Result<u64> {
        let stored = self.log_len(attempt)?;
        let known = stored.saturating_sub(offset);
        let fresh = usize::try_from(known).ok().and_then(|known| data.get(known..));
        let Some(fresh) = fresh.filter(|fresh| offset <= stored && !fresh.is_empty()) else {
            return Ok(stored);
        };
        if stored + fresh.len() as u64 > LOG_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the log is at its bound"));
        }
        let path = self.log_path(attempt);
        let file = open_append(&path)?;
        file.write_all_at(fresh, stored)?;
        let stored = stored + fresh.len() as u64;
        self.tell_length(attempt, stored);
        Ok(stored)
    }

    fn tell_length(&self, attempt: AttemptId, length: u64) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(&attempt) {
            sender.send_replace(length);
        }
    }

    /// Keeps a log that came in one piece, unless the attempt has one: whole and safe from a power
    /// cut when this is done, and not there at all before.
    pub(crate) fn keep_whole_log(&self, attempt: AttemptId, log: &[u8]) -> io::Result<()> {
        if self.log_len(attempt)? > 0 {
            return self.sync_log(attempt);
        }
        let path = self.log_path(attempt);
        let nth = self.wholes.fetch_add(1, Ordering::Relaxed);
        let part = path.with_file_name(format!("log.part-{nth}"));
        let kept = write_synced(&part, log).and_then(|()| std::fs::rename(&part, &path));
        if let Err(error) = kept {
            // What is left of it would only take room.
            drop(std::fs::remove_file(&part));
            return Err(error);
        }
        std::fs::File::open(self.attempt_dir(attempt))?.sync_all()?;
        self.tell_length(attempt, log.len() as u64);
        Ok(())
    }

    /// Makes what was appended survive a power cut.
    pub(crate) fn sync_log(&self, attempt: AttemptId) -> io::Result<()> {
        match std::fs::File::open(self.log_path(attempt)) {
            Ok(file) => file.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds a note; beyond its bound notes are dropped, because they are for people.
    pub(crate) fn append_note(
        &self,
        attempt: AttemptId,
        at: Timestamp,
        text: &str,
    ) -> io::Result<()> {
        let mut record = Vec::with_capacity(text.len() + 16);
        encode(LogStream::Gap, at, text.as_bytes(), &mut record);
        let _alone = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let file = open_append(&self.notes_path(attempt))?;
        let length = file.metadata()?.len();
        if length + record.len() as u64 > NOTES_LEN_MAX {
            return Ok(());
        }
        let written = file.write_all_at(&record, length);
        if written.is_err() {
            // A part of a record would make what comes behind it unreadable.
            file.set_len(length)?;
        }
        written
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = open_append(path)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()
}

fn open_append(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            options.open(path)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use cloudai_proto::log_record::Decoder;

    use super::*;

    fn attempt() -> AttemptId {
        "task-1-a1".parse().unwrap()
    }

    #[test]
    fn a_piece_counts_as_far_as_it_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let files = TaskFiles::new(dir.path());
        let length = files.watch_log(attempt());
        for (offset, piece, stored) in [
            (0, "abc", 3),
            // The same again, a piece of which a part is there, and one behind a gap.
            (0, "abc", 3),
            (1, "bcde", 5),
            (9, "xyz", 5),
            (5, "", 5),
        ] {
            let got = files.append_log(attempt(), offset, piece.as_bytes()).unwrap();
            assert_eq!(got, stored, "{piece} at {offset}");
        }
        assert_eq!(std::fs::read(files.log_path(attempt())).unwrap(), b"abcde");
        assert_eq!(*length.borrow(), 5);
    }

    #[test]
    fn a_log_that_came_in_one_piece_is_kept_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let files = TaskFiles::new(dir.path());
        let length = files.watch_log(attempt());
        let home = files.attempt_dir(attempt());
        std::fs::create_dir_all(&home).unwrap();
        // One disk is full; from another master that was killed there is a part.
        std::os::unix::fs::symlink("/dev/full", home.join("log.part-0")).unwrap();
        std::fs::write(home.join("log.part-1"), "a part that is longer").unwrap();
        assert!(files.keep_whole_log(attempt(), b"whole").is_err());
        assert_eq!(files.log_len(attempt()).unwrap(), 0);
        for later in ["whole", "the same again"] {
            files.keep_whole_log(attempt(), later.as_bytes()).unwrap();
            assert_eq!(std::fs::read(files.log_path(attempt())).unwrap(), b"whole");
        }
        assert_eq!(*length.borrow(), 5);
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1, "no part is left");
    }

    #[test]
    fn a_log_beyond_its_bound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = TaskFiles::new(dir.path());
        // A file with a hole takes no room.
        let log = open_append(&files.log_path(attempt())).unwrap();
        log.set_len(LOG_LEN_MAX - 1).unwrap();
        assert_eq!(files.append_log(attempt(), LOG_LEN_MAX - 1, b"x").unwrap(), LOG_LEN_MAX);
        assert!(files.append_log(attempt(), LOG_LEN_MAX, b"x").is_err());
        assert_eq!(files.log_len(attempt()).unwrap(), LOG_LEN_MAX);
    }

    #[test]
    fn notes_that_come_at_once_are_all_kept_whole() {
        const WRITERS: usize = 8;
        const NOTES: usize = 500;
        let dir = tempfile::tempdir().unwrap();
        let files = TaskFiles::new(dir.path());
        let begin = std::sync::Barrier::new(WRITERS);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (files, begin) = (&files, &begin);
                scope.spawn(move || {
                    begin.wait();
                    for note in 0..NOTES {
                        let text = format!("{note} of {}", "w".repeat(writer + 1));
                        files.append_note(attempt(), Timestamp(1), &text).unwrap();
                    }
                });
            }
        });
        let mut decoder = Decoder::default();
        decoder.push(&std::fs::read(files.notes_path(attempt())).unwrap());
        let mut texts = std::collections::BTreeSet::new();
        while let Some(record) = decoder.next_record().unwrap() {
            texts.insert(record.bytes);
        }
        assert_eq!(texts.len(), WRITERS * NOTES);
    }

    #[test]
    fn notes_beyond_their_bound_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let files = TaskFiles::new(dir.path());
        let note = "n".repeat(1_000);
        for _ in 0..=NOTES_LEN_MAX / note.len() as u64 {
            files.append_note(attempt(), Timestamp(1), &note).unwrap();
        }
        let length = std::fs::metadata(files.notes_path(attempt())).unwrap().len();
        let record = note.len() as u64 + 13;
        assert_eq!(length, NOTES_LEN_MAX / record * record);
    }
}
