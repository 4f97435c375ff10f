//! The worker's folder: logs on their way to the master, outputs to upload, and a lock so that no
//! second process uses it. What an earlier process left is removed when the folder is opened.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cloudai_model::AttemptId;

use crate::config::WorkerError;
use crate::logs;

/// An open data folder. The lock goes with it.
#[derive(Debug)]
pub(crate) struct DataDir {
    spool: PathBuf,
    output: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder when it is not there, locks it and empties it.
    pub(crate) fn open(root: &Path) -> Result<Self, WorkerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkerError::DataDir { path, source }
        };
        std::fs::create_dir_all(root).map_err(failed(root))?;
        let path = root.join("lock");
        let lock = File::options().create(true).append(true).open(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(WorkerError::DataDirInUse { path: root.to_owned() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(WorkerError::DataDir { path, source });
            }
        }
        let (spool, output) = (root.join("spool"), root.join("output"));
        for folder in [&spool, &output] {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(folder)(error));
                }
                _ => std::fs::create_dir(folder).map_err(failed(folder))?,
            }
        }
        Ok(Self { spool, output, _lock: lock })
    }

    /// Where the attempt's log is spooled.
    pub(crate) fn spool_path(&self, attempt: AttemptId) -> PathBuf {
        self.spool.join(format!("{attempt}.log"))
    }

    /// Where the files of the attempt's `/output` are.
    pub(crate) fn output_path(&self, attempt: AttemptId) -> PathBuf {
        self.output.join(attempt.to_string())
    }

    /// Removes everything of an attempt. What is not there needs no removing; what cannot be
    /// removed is removed at the next start.
    pub(crate) async fn remove(&self, attempt: AttemptId) {
        let (spool, output) = (self.spool_path(attempt), self.output_path(attempt));
        let log = spool.clone();
        let removed = tokio::task::spawn_blocking(move || logs::remove(&log)).await;
        for (path, result) in [
            (&spool, removed.unwrap_or_else(|error| Err(error.into()))),
            (&output, tokio::fs::remove_dir_all(&output).await),
        ] {
            if let Err(error) = result
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("Cannot remove {}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_process_and_begins_empty() {
        let root = tempfile::tempdir().unwrap();
        let attempt = "task-1-a1".parse().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        std::fs::write(first.spool_path(attempt), "left over").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(error.to_string().contains("is in use by another worker"), "{error}");
        drop(first);
        let second = DataDir::open(root.path()).unwrap();
        assert!(!second.spool_path(attempt).exists());
    }
}
