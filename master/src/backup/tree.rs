//! Files: copied as far as they are there, measured, brought to the disk.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::syncfs;
use sha2::{Digest as _, Sha256};

use super::{BackupError, FilesPart, Progress, io_error};

/// Bytes that are read at a time.
const PIECE_LEN: usize = 256 << 10;
/// Files between two words about the progress.
const FILES_PER_WORD: u64 = 256;

/// Copies the folders of `from` whose names `wants`, with everything in them, into the new folder
/// `to`. Only regular files and folders are copied; nothing is followed. A file that grows
/// meanwhile is copied as far as it was when its turn came; one that goes away is left out.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    wants: impl Fn(&str) -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<FilesPart, BackupError> {
    fs::create_dir(to).map_err(io_error("make", to))?;
    let mut done = FilesPart::default();
    let mut folders = Vec::new();
    for (name, kind) in entries(from)? {
        let wanted = name.to_str().is_some_and(&wants);
        if wanted && kind.is_dir() {
            folders.push((from.join(&name), to.join(&name)));
        }
    }
    while let Some((from, to)) = folders.pop() {
        fs::create_dir(&to).map_err(io_error("make", &to))?;
        for (name, kind) in entries(&from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            if kind.is_dir() {
                folders.push((from, to));
            } else if kind.is_file()
                && let Some(bytes) = copy_file(&from, &to)?
            {
                done.count += 1;
                done.bytes += bytes;
                if done.count.is_multiple_of(FILES_PER_WORD) {
                    progress(Progress::Files(done.count, done.bytes));
                }
            }
        }
    }
    progress(Progress::Files(done.count, done.bytes));
    Ok(done)
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

/// Copies one file; `None` when it is gone.
fn copy_file(from: &Path, to: &Path) -> Result<Option<u64>, BackupError> {
    let source = match File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", from)(error)),
    };
    let length = source.metadata().map_err(io_error("read", from))?.len();
    let mut copy = File::create_new(to).map_err(io_error("write", to))?;
    let bytes = io::copy(&mut source.take(length), &mut copy).map_err(io_error("write", to))?;
    Ok(Some(bytes))
}

/// Copies one file that must be there.
pub(super) fn copy_one(from: &Path, to: &Path) -> Result<(), BackupError> {
    let gone = || io_error("read", from)(io::ErrorKind::NotFound.into());
    copy_file(from, to)?.map(drop).ok_or_else(gone)
}

/// The length of a file and its SHA-256 in hexadecimal.
pub(super) fn measure(path: &Path) -> Result<(u64, String), BackupError> {
    use std::fmt::Write as _;
    let mut file = File::open(path).map_err(io_error("read", path))?;
    let (mut sum, mut length, mut piece) = (Sha256::new(), 0, vec![0; PIECE_LEN]);
    loop {
        match file.read(&mut piece).map_err(io_error("read", path))? {
            0 => break,
            read => {
                sum.update(&piece[..read]);
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
