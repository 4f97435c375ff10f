//! A copy of a master's data, taken while it runs, and a data directory made from one.
//!
//! A backup is a directory: `backup.json` says what it is, `cloudai.db` is the store, `tasks/` are
//! the logs and files, `files.sha256` is their list. It appears whole or not at all, and so does
//! what is restored. Nothing here may change what it copies, or go on from numbers that the lost
//! master may have given. Read next: `take.rs`, `restore.rs`, and `crates/model/src/numbers.rs` for
//! what is fenced.

mod list;
mod manifest;
mod restore;
mod take;
#[cfg(test)]
mod tests;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use cloudai_database::StoreError;
use cloudai_master_core::RestoreError;
use thiserror::Error;

pub use manifest::{FilesPart, Manifest, StorePart, TasksPart};
pub use restore::{Damage, RestoreRequest, Restored, restore};
pub(crate) use restore::{find_orphan, is_backup};
pub use take::{BackupRequest, back_up};

/// The store's file, in a backup as in a data directory.
const STORE: &str = "cloudai.db";
/// What the store keeps beside its file while a master runs.
const STORE_LOG: &str = "cloudai.db-wal";
/// Logs and files of tasks, in a backup as in a data directory.
const TASKS: &str = "tasks";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The store is copied: pages so far, pages in all.
    Store(u64, u64),
    /// The store is read through.
    Check,
    /// Logs and files are copied: files and bytes so far.
    Files(u64, u64),
    /// Everything is brought to the disk.
    Sync,
}

/// Why there is no backup, or nothing was restored from one.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place for the backup holds something.
    #[error(
        "{path} is not empty, and a backup is never written over anything: name a directory that \
         does not exist yet",
        path = path.display()
    )]
    NotEmpty {
        /// The place.
        path: PathBuf,
    },
    /// The backup would lie in what it is a backup of.
    #[error(
        "{path} lies in the data directory and would be lost with it: name a place on another disk",
        path = path.display()
    )]
    Inside {
        /// The place.
        path: PathBuf,
    },
    /// What was named is no backup.
    #[error(
        "{path} is not a backup: {why}. Name a directory that 'cloudai backup' made",
        path = path.display()
    )]
    NoBackup {
        /// The place.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The backup is not what it was when it was made.
    #[error(
        "the backup {path} is damaged: {why}. Nothing was restored. Use another backup",
        path = path.display()
    )]
    Damaged {
        /// The place.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A log or a file of the backup is not what it was when it was made.
    #[error(
        "the backup {path} is damaged: {damage}. Nothing was restored. Use another backup, or leave \
         out what is damaged with --skip-damaged",
        path = path.display()
    )]
    DamagedFile {
        /// The place.
        path: PathBuf,
        /// What is wrong.
        damage: Damage,
    },
    /// The backup was made by a newer version.
    #[error(
        "the backup {path} was made by CloudAI {version}, whose backups this one cannot read. \
         Nothing was restored. Use that version or a newer one",
        path = path.display()
    )]
    Newer {
        /// The place.
        path: PathBuf,
        /// Who made it.
        version: String,
    },
    /// The place for the data holds data.
    #[error(
        "{path} is not empty (there is '{found}'), and nothing is ever restored over data. Name \
         another --data-dir, or move what is there away",
        path = path.display()
    )]
    Occupied {
        /// The place.
        path: PathBuf,
        /// The first thing that is there.
        found: String,
    },
    /// The clock of this machine goes wrong.
    #[error(
        "the backup {path} was made in the future by the clock of this machine. How much time \
         passed since then decides which numbers are fenced off: set the clock right first",
        path = path.display()
    )]
    Future {
        /// The place.
        path: PathBuf,
    },
    /// No numbers are left that were surely never given.
    #[error(
        "the backup {path} is too old: no numbers are left that were surely never given since. \
         Begin with an empty data directory",
        path = path.display()
    )]
    UsedUp {
        /// The place.
        path: PathBuf,
    },
    /// No master can have written what the store holds.
    #[error(
        "the store of the backup is inconsistent: {0}. Nothing was restored. Use another backup"
    )]
    Inconsistent(#[from] RestoreError),
    /// There is no room left.
    #[error("there is no room left for {path}. Free space on that disk and try again",
        path = path.display())]
    Full {
        /// What was written.
        path: PathBuf,
    },
    /// A file or a directory could not be used.
    #[error(
        "cannot {doing} {path}: {source}. Let this user use it and look after its disk, or name \
         another place",
        path = path.display()
    )]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Names the file and what was tried with it.
fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BackupError::Full { path },
        _ => BackupError::Io { doing, path, source },
    }
}
