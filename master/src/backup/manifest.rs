//! What a backup says of itself.

use std::path::Path;

use cloudai_database::StatusCounts;
use serde::{Deserialize, Serialize};

use super::{BackupError, io_error};

/// The file's name in a backup. It is written last.
pub(super) const MANIFEST: &str = "backup.json";

/// The form that this version writes.
pub(super) const FORMAT: u32 = 1;

/// Largest manifest in bytes; what is larger is none.
const BYTES_MAX: u64 = 1 << 20;

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the backup.
    pub format: u32,
    /// The CloudAI that made it.
    pub cloudai_version: String,
    /// When its store was copied, in Unix milliseconds. What was accepted later is not in it.
    pub made_at_ms: u64,
    /// The store.
    pub store: StorePart,
    /// The logs and files; `None` when only the store was asked for.
    pub files: Option<FilesPart>,
}

/// The store of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePart {
    /// The version of its schema.
    pub schema: u32,
    /// Which history of the cluster it belongs to; each restore begins a new one.
    pub epoch: u32,
    /// The number of the last job.
    pub last_job: u64,
    /// Its tasks by status.
    pub tasks: TasksPart,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// Tasks by status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksPart {
    /// Waiting for a worker.
    pub queued: u64,
    /// Placed, not started.
    pub assigned: u64,
    /// Started.
    pub running: u64,
    /// Ended with exit code 0.
    pub succeeded: u64,
    /// Ended in another way.
    pub failed: u64,
    /// Ended by a cancel.
    pub cancelled: u64,
}

impl From<StatusCounts> for TasksPart {
    fn from(counts: StatusCounts) -> Self {
        let StatusCounts { queued, assigned, running, succeeded, failed, cancelled } = counts;
        Self { queued, assigned, running, succeeded, failed, cancelled }
    }
}

/// The logs and files of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesPart {
    /// How many.
    pub count: u64,
    /// Their lengths together, in bytes.
    pub bytes: u64,
    /// The SHA-256 of `files.sha256`, which has those of the files, in hexadecimal.
    pub list_sha256: String,
}

/// The part that every form has, so that a newer one can be named.
#[derive(Deserialize)]
struct Head {
    format: u32,
    #[serde(default)]
    cloudai_version: String,
}

/// Reads the manifest of a backup.
pub(super) fn read(backup: &Path) -> Result<Manifest, BackupError> {
    let none = |why: String| BackupError::NoBackup { path: backup.to_owned(), why };
    let path = backup.join(MANIFEST);
    let size = match std::fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) => return Err(none(format!("{MANIFEST} cannot be read: {error}"))),
    };
    if size > BYTES_MAX {
        return Err(none(format!("{MANIFEST} has {size} bytes")));
    }
    let text = std::fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let head: Head = serde_json::from_str(&text)
        .map_err(|error| none(format!("{MANIFEST} cannot be understood: {error}")))?;
    if head.format > FORMAT {
        let (path, version) = (backup.to_owned(), head.cloudai_version);
        return Err(BackupError::Newer { path, version });
    }
    serde_json::from_str(&text)
        .map_err(|error| none(format!("{MANIFEST} cannot be understood: {error}")))
}

/// Writes the manifest of a backup.
pub(super) fn write(backup: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let path = backup.join(MANIFEST);
    let mut text = serde_json::to_string_pretty(manifest).expect("a manifest is plain data");
    text.push('\n');
    std::fs::write(&path, text).map_err(io_error("write", &path))
}
