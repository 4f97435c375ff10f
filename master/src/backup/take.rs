//! Taking a backup.
//!
//! The store comes first, the files after it: an end is stored only when the log and the files of
//! its attempt are, so whatever the copied store says has ended is whole in the copy.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cloudai_database::copy_store;

use super::manifest::{self, FORMAT, Manifest, StorePart};
use super::{BackupError, Progress, STORE, io_error, tree};
use crate::clock;

/// What to copy, and where to.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The data directory of a master, which may run.
    pub data_dir: PathBuf,
    /// The backup; made by this, or empty.
    pub to: PathBuf,
    /// Whether logs and files are left out.
    pub store_only: bool,
}

/// Makes a backup. It stands under its name when it is whole and on the disk, not before.
pub fn back_up(
    request: &BackupRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, BackupError> {
    let BackupRequest { data_dir, to, store_only } = request;
    let to = std::path::absolute(to).map_err(io_error("use", to))?;
    check_place(&to, data_dir)?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    let partial = Partial::begin(&to)?;
    let made_at_ms = clock::wall().unix_ms();
    let store = take_store(data_dir, &partial.path, progress)?;
    let last_job = store.last_job;
    let files = if *store_only {
        None
    } else {
        // Jobs that the copied store does not know would belong to nothing.
        let known = |name: &str| name.parse().is_ok_and(|job: u64| job <= last_job);
        Some(tree::copy(data_dir, &partial.path, known, progress)?)
    };
    let cloudai_version = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { format: FORMAT, cloudai_version, made_at_ms, store, files };
    manifest::write(&partial.path, &manifest)?;
    progress(Progress::Sync);
    tree::sync_all(&partial.path)?;
    partial.finish(&to)?;
    tree::sync_names(parent)?;
    Ok(manifest)
}

fn check_place(to: &Path, data_dir: &Path) -> Result<(), BackupError> {
    let data_dir = std::path::absolute(data_dir).map_err(io_error("use", data_dir))?;
    if to.starts_with(&data_dir) {
        return Err(BackupError::Inside { path: to.to_owned() });
    }
    let is_free = match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(is_empty) => is_empty,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) if error.kind() == ErrorKind::NotADirectory => false,
        Err(error) => return Err(io_error("look into", to)(error)),
    };
    if is_free { Ok(()) } else { Err(BackupError::NotEmpty { path: to.to_owned() }) }
}

fn take_store(
    data_dir: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<StorePart, BackupError> {
    let path = to.join(STORE);
    let copied = copy_store(data_dir, &path, &mut |done, all| {
        progress(Progress::Store(done, all));
        if done == all {
            progress(Progress::Check);
        }
    })?;
    let (bytes, sha256) = tree::measure(&path)?;
    Ok(StorePart {
        schema: copied.schema,
        epoch: copied.numbers.epoch(),
        last_job: copied.numbers.last_job,
        tasks: copied.tasks.into(),
        bytes,
        sha256,
    })
}

/// A backup that is not whole yet, under a name of its own; gone when it does not become whole.
struct Partial {
    path: PathBuf,
}

impl Partial {
    /// Under the first name that is free: one that was killed may have had the same process id, as
    /// every process of a container has.
    fn begin(to: &Path) -> Result<Self, BackupError> {
        let mut stem = OsString::from(".");
        stem.push(to.file_name().unwrap_or("backup".as_ref()));
        stem.push(format!(".partial-{}", std::process::id()));
        for nth in 0_u32.. {
            let mut name = stem.clone();
            if nth > 0 {
                name.push(format!("-{nth}"));
            }
            let path = to.with_file_name(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("make", &path)(error)),
            }
        }
        unreachable!("no folder has as many entries")
    }

    fn finish(self, to: &Path) -> Result<(), BackupError> {
        // Over an empty directory, too; over one that got an entry meanwhile it fails.
        fs::rename(&self.path, to).map_err(io_error("make", to))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename it is not there any more.
        let _ = fs::remove_dir_all(&self.path);
    }
}
