//! The worker's folder: what it knows of its attempts, logs on their way to the master, outputs to
//! upload, until when its leases run, and a lock so that no second process uses it. It must never
//! remove what an attempt that goes on still needs. Read next: `records.rs`.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cloudai_model::AttemptId;

use crate::config::WorkerError;
use crate::logs;
use crate::records::{self, AttemptRecord, Kept, Places};

/// What follows an attempt in the names of its log's files.
const LOG_END: &str = ".log";

/// An open data folder. The lock goes with it.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    instance: String,
    attempts: PathBuf,
    spool: PathBuf,
    output: PathBuf,
    _lock: File,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> WorkerError + use<> {
    let path = path.to_owned();
    move |source| WorkerError::DataDir { path, source }
}

impl DataDir {
    /// Makes the folder when it is not there, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, WorkerError> {
        std::fs::create_dir_all(root).map_err(failed(root))?;
        // The same folder has the same name from wherever the worker is started.
        let root = root.canonicalize().map_err(failed(root))?;
        let path = root.join("lock");
        let lock = File::options().create(true).append(true).open(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(WorkerError::DataDirInUse { path: root });
            }
            Err(TryLockError::Error(source)) => {
                return Err(WorkerError::DataDir { path, source });
            }
        }
        let [attempts, spool, output] = ["attempts", "spool", "output"].map(|name| root.join(name));
        for folder in [&attempts, &spool, &output] {
            std::fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        let instance = name_once(&root).map_err(failed(&root))?;
        Ok(Self { root, instance, attempts, spool, output, _lock: lock })
    }

    /// What the engine knows the folder by: its absolute name when it was made. One that is moved
    /// keeps it, and so finds its containers again.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// What an earlier process knew of its attempts.
    pub(crate) fn read_records(&self) -> Result<Vec<Kept>, WorkerError> {
        records::read_all(&self.attempts).map_err(failed(&self.attempts))
    }

    /// Removes the logs and outputs of all attempts but these.
    pub(crate) fn clean(&self, keep: &BTreeSet<AttemptId>) -> Result<(), WorkerError> {
        for (folder, end) in [(&self.spool, LOG_END), (&self.output, "")] {
            for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
                let entry = entry.map_err(failed(folder))?;
                if !belongs(&entry.file_name().to_string_lossy(), end, keep) {
                    remove_any(&entry.path()).map_err(failed(&entry.path()))?;
                }
            }
        }
        Ok(())
    }

    /// Where the attempt's log is spooled.
    pub(crate) fn spool_path(&self, attempt: AttemptId) -> PathBuf {
        self.spool.join(format!("{attempt}{LOG_END}"))
    }

    /// Where the files of the attempt's `/output` are.
    pub(crate) fn output_path(&self, attempt: AttemptId) -> PathBuf {
        self.output.join(attempt.to_string())
    }

    /// The record of an attempt.
    pub(crate) fn record(&self, attempt: AttemptId) -> AttemptRecord {
        AttemptRecord::at(Places {
            record: self.record_path(attempt),
            spool: self.spool_path(attempt),
            output: self.output_path(attempt),
        })
    }

    fn record_path(&self, attempt: AttemptId) -> PathBuf {
        self.attempts.join(records::file_name(attempt))
    }

    /// Where it is kept until when the leases run.
    pub(crate) fn lease_path(&self) -> PathBuf {
        self.root.join("lease")
    }

    /// Removes everything of an attempt, its record first: what a kill leaves behind is then known
    /// to be of no use, and removed at the next start. What is not there needs no removing.
    pub(crate) async fn remove(&self, attempt: AttemptId) {
        let (record, log) = (self.record_path(attempt), self.spool_path(attempt));
        let output = self.output_path(attempt);
        let remove = move || {
            for (path, removed) in [
                (&record, remove_any(&record)),
                (&log, logs::remove(&log)),
                (&output, remove_any(&output)),
            ] {
                if let Err(error) = removed {
                    tracing::warn!("Cannot remove {}: {error}", path.display());
                }
            }
        };
        // It ends early only with the runtime; the next process then removes the rest.
        drop(tokio::task::spawn_blocking(remove).await);
    }
}

/// Writes the name of the folder into it, once, and for good.
fn name_once(root: &Path) -> io::Result<String> {
    let path = root.join("instance");
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let name = root.to_string_lossy().into_owned();
    let partial = root.join("instance.partial");
    let mut file = File::create(&partial)?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, &path)?;
    File::open(root)?.sync_all()?;
    Ok(name)
}

/// Whether a name is that of one of these attempts and what follows; a long log has several files.
fn belongs(name: &str, end: &str, to: &BTreeSet<AttemptId>) -> bool {
    let attempt = if end.is_empty() { Some(name) } else { name.find(end).map(|at| &name[..at]) };
    let attempt = attempt.and_then(|text| text.parse::<AttemptId>().ok());
    attempt.is_some_and(|attempt| to.contains(&attempt))
}

fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(
        |error| {
            if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_process_and_keeps_what_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let (goes_on, is_over) = ("task-1-a1".parse().unwrap(), "task-2-a1".parse().unwrap());
        let first = DataDir::open(root.path()).unwrap();
        for attempt in [goes_on, is_over] {
            std::fs::write(first.spool_path(attempt), "log").unwrap();
            std::fs::write(first.spool_path(attempt).with_extension("log.tail0"), "log").unwrap();
            std::fs::create_dir(first.output_path(attempt)).unwrap();
        }
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(error.to_string().contains("is in use by another worker"), "{error}");
        drop(first);
        let second = DataDir::open(root.path()).unwrap();
        second.clean(&BTreeSet::from([goes_on])).unwrap();
        for (attempt, want) in [(goes_on, true), (is_over, false)] {
            assert_eq!(second.spool_path(attempt).exists(), want);
            assert_eq!(second.spool_path(attempt).with_extension("log.tail0").exists(), want);
            assert_eq!(second.output_path(attempt).exists(), want);
        }
    }

    #[test]
    fn a_folder_has_one_name_however_it_is_given() {
        let root = tempfile::tempdir().unwrap();
        let odd = root.path().join("worker/../worker");
        std::fs::create_dir(root.path().join("worker")).unwrap();
        let straight = root.path().canonicalize().unwrap().join("worker");
        assert_eq!(DataDir::open(&odd).unwrap().instance(), straight.to_str().unwrap());
    }

    #[test]
    fn a_folder_that_is_moved_keeps_its_name() {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = (place.path().join("old"), place.path().join("new"));
        let name = DataDir::open(&old).unwrap().instance().to_owned();
        std::fs::rename(&old, &new).unwrap();
        assert_eq!(DataDir::open(&new).unwrap().instance(), name);
        assert_ne!(DataDir::open(&old).unwrap().root, new);
    }
}
