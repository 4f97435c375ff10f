//! Making a data directory from a backup.
//!
//! Nothing stands in the data directory before everything was checked. The new store goes on from
//! numbers that the lost master cannot have given, so that its sessions, attempts and jobs are told
//! from those to come.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloudai_database::{DirLock, SqliteStore, Store as _};
use cloudai_master_core::{Core, Settings};
use cloudai_model::Numbers;

use super::list::{self, LIST};
use super::manifest::{self, FilesPart, MANIFEST, Manifest};
use super::{BackupError, Progress, STORE, STORE_LOG, TASKS, io_error, tree};
use crate::clock;

/// Where it is put together, in the data directory.
const STAGE: &str = "restoring";

/// What is wrong with a file whose bytes are others.
const DIFFERS: &str = "is not what was backed up (its SHA-256 differs)";

/// What else may lie in a data directory that is restored into: what workers on this machine keep,
/// what the prompt keeps, and what is left of a restore that did not come to its end.
const HARMLESS: [&str; 5] = ["cloudai.lock", "workers", "history", "lost+found", STAGE];

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The backup.
    pub backup: PathBuf,
    /// The new data directory, which must hold no data.
    pub data_dir: PathBuf,
    /// Whether logs and files that are damaged are left out; else nothing is restored. The store is
    /// never left out.
    pub skip_damaged: bool,
}

/// A log or a file of a backup that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which one, relative to the backup.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.why)
    }
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The backup that it was restored from.
    pub manifest: Manifest,
    /// How long ago it was made by the clock of this machine, in milliseconds.
    pub lost_ms: u64,
    /// Where the numbers go on.
    pub numbers: Numbers,
    /// Logs and files that were left out.
    pub left_out: Vec<Damage>,
}

/// Makes a data directory from a backup.
pub fn restore(
    request: &RestoreRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, BackupError> {
    let RestoreRequest { backup, data_dir, .. } = request;
    let manifest = manifest::read(backup)?;
    check_store(backup, &manifest)?;
    let now_ms = clock::wall().unix_ms();
    let lost_ms = now_ms
        .checked_sub(manifest.made_at_ms)
        .ok_or_else(|| BackupError::Future { path: backup.to_owned() })?;
    let lock = claim(data_dir)?;
    let stage = data_dir.join(STAGE);
    let staged = stage_all(request, &stage, &manifest, lost_ms, progress);
    let finished = staged.and_then(|(numbers, left_out)| {
        progress(Progress::Sync);
        tree::sync_all(&stage)?;
        wait_until(manifest.made_at_ms + Numbers::seconds_lost(lost_ms) * 1_000);
        put_in_place(&stage, data_dir)?;
        Ok((numbers, left_out))
    });
    if finished.is_err() {
        // Its own error says more than one of tidying up.
        let _ = fs::remove_dir_all(&stage);
    }
    drop(lock);
    let (numbers, left_out) = finished?;
    Ok(Restored { manifest, lost_ms, numbers, left_out })
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
        return Err(damaged(format!("{STORE} {DIFFERS}")));
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

/// Puts everything together in a folder of its own. Where the numbers go on, and what was left out.
fn stage_all(
    request: &RestoreRequest,
    stage: &Path,
    manifest: &Manifest,
    lost_ms: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Numbers, Vec<Damage>), BackupError> {
    let backup = &request.backup;
    if stage.exists() {
        fs::remove_dir_all(stage).map_err(io_error("clear", stage))?;
    }
    fs::create_dir(stage).map_err(io_error("make", stage))?;
    let store = backup.join(STORE);
    tree::copy_file(&store, &stage.join(STORE))?
        .ok_or_else(|| io_error("read", &store)(io::ErrorKind::NotFound.into()))?;
    progress(Progress::Check);
    let numbers =
        fence(stage, lost_ms)?.ok_or_else(|| BackupError::UsedUp { path: backup.to_owned() })?;
    let left_out = match &manifest.files {
        Some(files) => stage_files(request, stage, files, progress)?,
        None => Vec::new(),
    };
    Ok((numbers, left_out))
}

/// Copies the logs and files that the backup lists, and no others, each checked against its line.
/// What was left out.
fn stage_files(
    request: &RestoreRequest,
    stage: &Path,
    files: &FilesPart,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Damage>, BackupError> {
    let mut left_out = Vec::new();
    let mut damaged = |path: PathBuf, why: String| {
        let damage = Damage { path, why };
        if !request.skip_damaged {
            return Err(BackupError::DamagedFile { path: request.backup.clone(), damage });
        }
        left_out.push(damage);
        Ok(())
    };
    let list = request.backup.join(LIST);
    match tree::measure(&list) {
        Ok((_, sha256)) if sha256 == files.list_sha256 => {}
        Ok(_) => damaged(LIST.into(), DIFFERS.to_owned())?,
        // Without it, nothing can be told from what is damaged.
        Err(error) => {
            damaged(LIST.into(), format!("cannot be used: {error}"))?;
            return Ok(left_out);
        }
    }
    let lines = BufReader::new(File::open(&list).map_err(io_error("read", &list))?).split(b'\n');
    let mut tally = tree::Tally::default();
    for line in lines {
        let line = line.map_err(io_error("read", &list))?;
        let Some((path, sha256)) = list::parse(&line) else {
            let text = String::from_utf8_lossy(&line).escape_debug().to_string();
            damaged(LIST.into(), format!("has a line that names no file of a task: '{text}'"))?;
            continue;
        };
        let to = stage.join(&path);
        let folder = to.parent().expect("it lies in the stage");
        fs::create_dir_all(folder).map_err(io_error("make", folder))?;
        let why = match tree::copy_file(&request.backup.join(&path), &to) {
            Ok(Some((length, copied))) if copied == sha256 => {
                tally.add(length, progress);
                continue;
            }
            Ok(Some(_)) => DIFFERS.to_owned(),
            Ok(None) => "is missing".to_owned(),
            Err(BackupError::Io { doing: "read", source, .. }) => {
                format!("cannot be read: {source}")
            }
            Err(error) => return Err(error),
        };
        damaged(path, why)?;
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &to)(error));
            }
            _ => {}
        }
    }
    Ok(left_out)
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
