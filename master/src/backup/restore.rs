//! Making a data directory from a backup.
//!
//! Everything is checked before anything is made. The new store goes on from numbers that the lost
//! master cannot have given, so that its sessions, attempts and jobs are told from those to come.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use cloudai_database::{DirLock, SqliteStore, Store as _};
use cloudai_master_core::{Core, Settings};
use cloudai_model::Numbers;

use super::manifest::{self, MANIFEST, Manifest};
use super::{BackupError, Progress, STORE, STORE_LOG, TASKS, io_error, tree};
use crate::clock;

/// Where it is put together, in the data directory.
const STAGE: &str = "restoring";

/// What else may lie in a data directory that is restored into: what workers on this machine keep,
/// what the prompt keeps, and what is left of a restore that did not come to its end.
const HARMLESS: [&str; 5] = ["cloudai.lock", "workers", "history", "lost+found", STAGE];

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The backup that it was restored from.
    pub manifest: Manifest,
    /// How long ago it was made by the clock of this machine, in milliseconds.
    pub lost_ms: u64,
    /// Where the numbers go on.
    pub numbers: Numbers,
}

/// Makes the data directory `data_dir`, which must hold no data, from a backup.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, BackupError> {
    let manifest = manifest::read(backup)?;
    check_store(backup, &manifest)?;
    let now_ms = clock::wall().unix_ms();
    let lost_ms = now_ms
        .checked_sub(manifest.made_at_ms)
        .ok_or_else(|| BackupError::Future { path: backup.to_owned() })?;
    let lock = claim(data_dir)?;
    let stage = data_dir.join(STAGE);
    let staged = stage_all(backup, &stage, &manifest, lost_ms, progress);
    let finished = staged.and_then(|numbers| {
        progress(Progress::Sync);
        tree::sync_all(&stage)?;
        wait_until(manifest.made_at_ms + Numbers::seconds_lost(lost_ms) * 1_000);
        put_in_place(&stage, data_dir)?;
        Ok(numbers)
    });
    if finished.is_err() {
        // Its own error says more than one of tidying up.
        let _ = fs::remove_dir_all(&stage);
    }
    drop(lock);
    Ok(Restored { manifest, lost_ms, numbers: finished? })
}

/// Whether the store is the one that the backup was made with.
fn check_store(backup: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: backup.to_owned(), why };
    let path = backup.join(STORE);
    if !path.is_file() {
        return Err(damaged(format!("{STORE} is missing")));
    }
    let (bytes, sha256) = tree::measure(&path)?;
    if bytes != manifest.store.bytes {
        let had = manifest.store.bytes;
        return Err(damaged(format!("{STORE} has {bytes} bytes and not {had}")));
    }
    if sha256 != manifest.store.sha256 {
        return Err(damaged(format!("{STORE} is not what was backed up (its SHA-256 differs)")));
    }
    if manifest.files.is_some() && !backup.join(TASKS).is_dir() {
        return Err(damaged(format!("the folder {TASKS} is missing")));
    }
    Ok(())
}

/// Takes the data directory for this process and makes sure that it holds no data.
fn claim(data_dir: &Path) -> Result<DirLock, BackupError> {
    let exists = data_dir.exists();
    let is_used = data_dir.join("cloudai.lock").exists();
    // A master that runs there is named rather than its files.
    let early = is_used.then(|| DirLock::take(data_dir)).transpose()?;
    if exists {
        let entries = fs::read_dir(data_dir).map_err(io_error("look into", data_dir))?;
        for entry in entries {
            let name = entry.map_err(io_error("look into", data_dir))?.file_name();
            let name = name.to_string_lossy();
            if !HARMLESS.contains(&name.as_ref()) {
                let (path, found) = (data_dir.to_owned(), name.into_owned());
                return Err(BackupError::Occupied { path, found });
            }
        }
    } else {
        fs::create_dir_all(data_dir).map_err(io_error("make", data_dir))?;
    }
    match early {
        Some(lock) => Ok(lock),
        None => Ok(DirLock::take(data_dir)?),
    }
}

/// Puts everything together in a folder of its own.
fn stage_all(
    backup: &Path,
    stage: &Path,
    manifest: &Manifest,
    lost_ms: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Numbers, BackupError> {
    if stage.exists() {
        fs::remove_dir_all(stage).map_err(io_error("clear", stage))?;
    }
    fs::create_dir(stage).map_err(io_error("make", stage))?;
    tree::copy_one(&backup.join(STORE), &stage.join(STORE))?;
    progress(Progress::Check);
    let numbers =
        fence(stage, lost_ms)?.ok_or_else(|| BackupError::UsedUp { path: backup.to_owned() })?;
    if manifest.files.is_some() {
        tree::copy(&backup.join(TASKS), &stage.join(TASKS), |_| true, progress)?;
    }
    Ok(numbers)
}

/// Checks that a master can start over the store, and makes it go on from numbers that nobody has;
/// `None` when there are none left.
fn fence(stage: &Path, lost_ms: u64) -> Result<Option<Numbers>, BackupError> {
    let mut store = SqliteStore::open(stage)?;
    store.check_whole()?;
    let snapshot = store.load()?;
    let live = snapshot.jobs.values().flat_map(|job| job.live.values());
    let highest = live.map(|task| task.attempt).max();
    let Some(numbers) = snapshot.numbers.after_loss(highest, lost_ms) else { return Ok(None) };
    Core::restore(snapshot, Settings::default(), clock::now())?;
    store.skip_numbers(numbers)?;
    Ok(Some(numbers))
}

/// Waits out the second for which numbers were left out, so that a restore after this one leaves
/// out more. A clock that is set back meanwhile does not make it longer.
fn wait_until(wall_ms: u64) {
    let left_ms = wall_ms.saturating_sub(clock::wall().unix_ms()).min(1_000);
    std::thread::sleep(Duration::from_millis(left_ms));
}

/// Moves what was staged to its place; the store comes last, because it makes a data directory one.
fn put_in_place(stage: &Path, data_dir: &Path) -> Result<(), BackupError> {
    let tasks = stage.join(TASKS);
    for name in [TASKS, STORE] {
        if name == TASKS && !tasks.exists() {
            continue;
        }
        let to = data_dir.join(name);
        fs::rename(stage.join(name), &to).map_err(io_error("make", &to))?;
        tree::sync_names(data_dir)?;
    }
    // What is left of the check: a lock file, and nothing that counts.
    fs::remove_dir_all(stage).map_err(io_error("clear", stage))
}

/// Whether a directory is a backup. A master that ran there would give numbers again that were
/// given after it, and spoil it.
pub(crate) fn is_backup(data_dir: &Path) -> io::Result<bool> {
    data_dir.join(MANIFEST).try_exists()
}

/// What a data directory without a store holds that belongs to one. A master that began anew there
/// would give its numbers again, and take old logs for those of new tasks. A store of no bytes is
/// one that was only begun, or that a file system emptied.
pub(crate) fn find_orphan(data_dir: &Path) -> io::Result<Option<&'static str>> {
    let size_of = |name: &str| match fs::metadata(data_dir.join(name)) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    if size_of(STORE)? > 0 {
        return Ok(None);
    }
    if size_of(STORE_LOG)? > 0 {
        return Ok(Some(STORE_LOG));
    }
    if data_dir.join(STAGE).try_exists()? {
        return Ok(Some(STAGE));
    }
    match fs::read_dir(data_dir.join(TASKS)) {
        Ok(mut entries) => Ok(entries.next().map(|_| TASKS)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
