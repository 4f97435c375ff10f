//! Why the store could not do what it was asked, in words for the person who has to act.

use std::path::PathBuf;

use thiserror::Error;

/// A failure of the store. Sources are not part of the text: print the chain once, at the edge.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another master holds the data directory.
    #[error(
        "the data directory {dir} is in use by another master{by}: stop that one, or choose \
         another --data-dir",
        dir = dir.display(),
        by = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, when its lock file tells.
        pid: Option<u32>,
    },
    /// The store was written by a newer version.
    #[error(
        "the store in {dir} was made by a newer CloudAI (schema {found}, this one knows {known}). \
         Nothing was changed. Start that version or a newer one, or restore a backup that was made \
         by this one with 'cloudai restore BACKUP --data-dir NEW'",
        dir = dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that this binary reads.
        known: u32,
    },
    /// The file is a database of some other program.
    #[error(
        "{path} is a database, but not one of CloudAI. Nothing was changed. Choose another \
         --data-dir, or move that file away",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be trusted any more.
    #[error(
        "the store {path} is damaged ({detail}). Nothing was changed. Restore a backup with \
         'cloudai restore BACKUP --data-dir NEW' and start the master there. Without a backup, save \
         what can be read with 'sqlite3 {path} .recover', or begin with an empty --data-dir",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong with it.
        detail: String,
    },
    /// The last master did not close the store, and what it wrote last is gone.
    #[error(
        "the last master did not close the store {path}, and its write-ahead log {path}-wal is not \
         there: what was stored last is missing. Nothing was changed. Put that file back, the two \
         belong together. When it is lost, restore a backup with 'cloudai restore BACKUP --data-dir \
         NEW' and start the master there. Without a backup, save what can be read with 'sqlite3 \
         {path} .recover', or begin with an empty --data-dir",
        path = path.display()
    )]
    LogMissing {
        /// The file.
        path: PathBuf,
    },
    /// There is no store where one was named.
    #[error(
        "there is no store in {dir}: name the data directory of the master with --data-dir",
        dir = dir.display()
    )]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The file or its directory cannot be written by this user.
    #[error(
        "{path} cannot be written: it belongs to another user, or the file system is read-only. \
         Start the master as the user who owns it, or give it to this one with 'chown -R'",
        path = path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// There is no room left. The store can be used again as soon as there is.
    #[error(
        "storage full: there is no room left for {path}. Nothing was stored. Free space on that \
         disk and try again",
        path = path.display()
    )]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// What was read or asked cannot follow from what is stored.
    #[error(
        "the store is inconsistent: {0}. Nothing was changed. Keep a copy of the data directory and \
         report it with this message; to go on, restore a backup with 'cloudai restore BACKUP \
         --data-dir NEW'"
    )]
    Corrupt(String),
    /// A file or a directory could not be used.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database refused, for a reason that has no variant of its own.
    #[error("cannot {doing} ({place})")]
    Backend {
        /// What was tried.
        doing: &'static str,
        /// Which store.
        place: String,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}
