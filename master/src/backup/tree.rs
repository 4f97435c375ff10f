//! Files: copied as far as they are there, measured, brought to the disk.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::syncfs;
use sha2::{Digest as _, Sha256};

use super::list::{self, LIST};
use super::{BackupError, FilesPart, Progress, TASKS, io_error};

/// Bytes that are read at a time.
const PIECE_LEN: usize = 256 << 10;
/// Files between two words about the progress.
const FILES_PER_WORD: u64 = 256;

/// Logs and files that were copied so far.
#[derive(Default)]
pub(super) struct Tally {
    count: u64,
    bytes: u64,
}

impl Tally {
    /// One more, of so many bytes.
    pub(super) fn add(&mut self, length: u64, progress: &mut dyn FnMut(Progress)) {
        self.count += 1;
        self.bytes += length;
        if self.count.is_multiple_of(FILES_PER_WORD) {
            progress(Progress::Files(self.count, self.bytes));
        }
    }
}

/// Copies the folders of the tasks from one data directory or backup to another place, those whose
/// names are wanted, with everything in them, and lists what was copied in [`LIST`] there. Only
/// regular files and folders are copied; nothing is followed. A file that grows meanwhile is copied
/// as far as it was when its turn came; one that goes away is left out.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    wants: impl Fn(&str) -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<FilesPart, BackupError> {
    let tasks = to.join(TASKS);
    fs::create_dir(&tasks).map_err(io_error("make", &tasks))?;
    let list_path = to.join(LIST);
    let list = File::create_new(&list_path).map_err(io_error("write", &list_path))?;
    let mut list = BufWriter::new(list);
    let mut tally = Tally::default();
    let mut folders = Vec::new();
    for (name, kind) in entries(&from.join(TASKS))? {
        if kind.is_dir() && name.to_str().is_some_and(&wants) {
            folders.push(Path::new(TASKS).join(name));
        }
    }
    while let Some(folder) = folders.pop() {
        let made = to.join(&folder);
        fs::create_dir(&made).map_err(io_error("make", &made))?;
        for (name, kind) in entries(&from.join(&folder))? {
            let path = folder.join(name);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Some((length, sha256)) = copy_file(&from.join(&path), &to.join(&path))?
            {
                list.write_all(&list::line(&path, &sha256))
                    .map_err(io_error("write", &list_path))?;
                tally.add(length, progress);
            }
        }
    }
    list.flush().map_err(io_error("write", &list_path))?;
    let Tally { count, bytes } = tally;
    progress(Progress::Files(count, bytes));
    let (_, list_sha256) = measure(&list_path)?;
    Ok(FilesPart { count, bytes, list_sha256 })
}

/// What is in a folder; nothing when there is no such folder.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, fs::FileType)>, BackupError> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("look into", dir)(error)),
    };
    let named = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().into(), entry.file_type()?))
    };
    list.map(named).collect::<io::Result<_>>().map_err(io_error("look into", dir))
}

/// Copies one file: its length in bytes and its SHA-256; `None` when it is gone.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<Option<(u64, String)>, BackupError> {
    let source = match File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", from)(error)),
    };
    let length = source.metadata().map_err(io_error("read", from))?.len();
    let mut copy = File::create_new(to).map_err(io_error("write", to))?;
    let write = |piece: &[u8]| copy.write_all(piece).map_err(io_error("write", to));
    read_through(source.take(length), from, write).map(Some)
}

/// The length of a file in bytes and its SHA-256.
pub(super) fn measure(path: &Path) -> Result<(u64, String), BackupError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    read_through(file, path, |_| Ok(()))
}

/// Hands a file out piece by piece; its length in bytes and its SHA-256 in hexadecimal.
fn read_through(
    mut file: impl Read,
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<(u64, String), BackupError> {
    let (mut sum, mut length, mut piece) = (Sha256::new(), 0, vec![0; PIECE_LEN]);
    loop {
        match file.read(&mut piece).map_err(io_error("read", path))? {
            0 => break,
            read => {
                sum.update(&piece[..read]);
                take(&piece[..read])?;
                length += read as u64;
            }
        }
    }
    let text = sum.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok((length, text))
}

/// Brings everything that was written to the file system of `dir` to the disk.
pub(super) fn sync_all(dir: &Path) -> Result<(), BackupError> {
    let sync = || syncfs(File::open(dir)?).map_err(io::Error::from);
    sync().map_err(io_error("sync", dir))
}

/// Brings the names in a folder to the disk.
pub(super) fn sync_names(dir: &Path) -> Result<(), BackupError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}
