//! The files of `/output`, from the container's volume into a directory of the worker. What lies in
//! the volume was made by a stranger: only regular files with plain names are taken, no link is
//! followed, and count, size and depth are bounded. It must never write outside of its target, and
//! it runs only after the container has ended, so that nothing changes under it.
//!
//! Two ways lead there: when the engine's volume is a directory that this process can read, the
//! files are moved or copied, and an empty one costs a single look; otherwise (another machine, no
//! rights) the engine sends an archive. Read next: `life.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use backon::BackoffBuilder;
use bollard::Docker;
use bollard::models::MountPoint;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::TryStreamExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::engine::CallError;
use super::{DockerSettings, OUTPUT_PATH, VolumeSource, wait};

/// Most files of one attempt.
const OUTPUT_FILES_MAX: usize = 10_000;
/// Most bytes of one attempt's files together.
const OUTPUT_BYTES_MAX: u64 = 64 << 30;
/// Most directory entries that are looked at.
const OUTPUT_ENTRIES_MAX: usize = 100_000;
/// Deepest directory, counted from `/output`.
const OUTPUT_DEPTH_MAX: usize = 32;
/// Longest path below `/output`, in bytes.
const OUTPUT_PATH_LEN_MAX: usize = 1024;
/// How long an archive may take for each next piece.
const ARCHIVE_IDLE: Duration = Duration::from_mins(1);
/// How often a transfer that breaks off begins again.
const ARCHIVE_RETRIES_MAX: usize = 5;
/// The kind of the error of a transfer that broke off; no disk has it.
const BROKEN_OFF: io::ErrorKind = io::ErrorKind::ConnectionAborted;
/// How the worker keeps what it took: for itself, whatever the task's modes were.
const FILE_MODE: u32 = 0o600;

/// What was taken, and what was not.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Files below the target, as relative paths.
    pub(super) files: Vec<PathBuf>,
    bytes: u64,
    entries: usize,
    /// Why things were left out: how many, and the first of them.
    skipped: BTreeMap<&'static str, (usize, String)>,
}

impl Gathered {
    fn skip(&mut self, why: &'static str, path: &Path) {
        // Escaped: a name is a stranger's text.
        let first = || format!("'{}'", path.to_string_lossy().escape_debug());
        let entry = self.skipped.entry(why).or_insert_with(|| (0, first()));
        entry.0 += 1;
    }

    /// A sentence for each reason for which something was left out.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |(why, (count, first)): (&&'static str, &(usize, String))| match count {
            1 => format!("{OUTPUT_PATH}: {first} was left out: {why}"),
            _ => format!("{OUTPUT_PATH}: {count} entries were left out, first {first}: {why}"),
        };
        self.skipped.iter().map(note).collect()
    }

    /// Whether a file of this name and size may still be taken; says so in the notes if not.
    fn admits(&mut self, path: &Path, bytes: u64) -> bool {
        let why = match path.to_str() {
            None => "its name is not UTF-8",
            Some(text) if text.chars().any(char::is_control) => "a control character in its name",
            Some(text) if text.len() > OUTPUT_PATH_LEN_MAX => "its path is too long",
            Some(_) if self.files.len() >= OUTPUT_FILES_MAX => "there are too many files",
            Some(_) if bytes > OUTPUT_BYTES_MAX - self.bytes => "the files are too large together",
            Some(_) => {
                self.bytes += bytes;
                return true;
            }
        };
        self.skip(why, path);
        false
    }
}

/// Whether it is the volume that was made for the container's `/output`: its files are moved away.
/// Those of a declared volume are their administrator's, wherever a task has it mounted.
pub(super) fn is_own(mount: &MountPoint, settings: &DockerSettings) -> bool {
    let declared = |name: &String| {
        let is_it = |source: &VolumeSource| matches!(source, VolumeSource::Named(n) if n == name);
        settings.volumes.values().any(is_it)
    };
    mount.destination.as_deref() == Some(OUTPUT_PATH)
        && mount.typ.as_deref() == Some("volume")
        && !mount.name.as_ref().is_some_and(declared)
}

/// Takes the files from the volume's directory on this machine, and with `is_resumed` those that an
/// earlier process took out of it. `None` when this process cannot read it; then nothing was taken.
pub(super) async fn gather_local(
    source: &Path,
    into: &Path,
    is_resumed: bool,
) -> Option<io::Result<Gathered>> {
    let (source, into) = (source.to_owned(), into.to_owned());
    let walked = tokio::task::spawn_blocking(move || {
        // The volume itself is made by the engine and cannot be replaced from within; its entries
        // can be anything.
        let first = fs::read_dir(&source).ok()?;
        let mut gathered = Gathered::default();
        let mut walked = walk(&source, first, &into, &mut gathered);
        if is_resumed {
            walked = walked.and_then(|()| add_moved(&into, &mut gathered));
        }
        Some(walked.map(|()| gathered))
    });
    walked.await.unwrap_or_else(|error| Some(Err(io::Error::other(error))))
}

/// Adds the files that an earlier process took out of the volume: a move leaves nothing behind.
fn add_moved(into: &Path, gathered: &mut Gathered) -> io::Result<()> {
    let known = gathered.files.iter().cloned().collect::<BTreeSet<_>>();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let entries = match fs::read_dir(into.join(&below)) {
            // Nothing was taken.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, metadata) = (below.join(entry.file_name()), entry.metadata()?);
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file()
                && !known.contains(&path)
                && gathered.admits(&path, metadata.len())
            {
                gathered.files.push(path);
            }
        }
    }
    Ok(())
}

fn walk(root: &Path, first: fs::ReadDir, into: &Path, gathered: &mut Gathered) -> io::Result<()> {
    let mut open = vec![(PathBuf::new(), first)];
    while let Some((below, mut entries)) = open.pop() {
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let path = below.join(entry.file_name());
            gathered.entries += 1;
            if gathered.entries > OUTPUT_ENTRIES_MAX {
                gathered.skip("there are too many entries", &path);
                return Ok(());
            }
            // Of the entry itself: a link is not followed.
            let metadata = fs::symlink_metadata(entry.path())?;
            if metadata.is_dir() && open.len() + 1 >= OUTPUT_DEPTH_MAX {
                gathered.skip("it lies too deep", &path);
            } else if metadata.is_dir() {
                let inner = fs::read_dir(root.join(&path))?;
                open.push((below, entries));
                open.push((path, inner));
                break;
            } else if !metadata.is_file() {
                gathered.skip("it is not a regular file", &path);
            } else if gathered.admits(&path, metadata.len()) {
                take(&entry.path(), &into.join(&path))?;
                gathered.files.push(path);
            }
        }
    }
    Ok(())
}

/// Moves a regular file, or copies it to another file system.
fn take(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::rename(from, to).is_err() {
        // A copy that an earlier process did not finish is made again.
        io::copy(&mut File::open(from)?, &mut File::create(to)?)?;
    }
    fs::set_permissions(to, Permissions::from_mode(FILE_MODE))
}

/// Takes the files from the archive that the engine makes of the volume. A transfer that breaks off
/// begins again: only the files would be lost with it, but a task without its result has to run
/// anew.
pub(super) async fn gather_archive(docker: &Docker, id: &str, into: &Path) -> io::Result<Gathered> {
    for pause in wait::pauses().with_max_times(ARCHIVE_RETRIES_MAX).build() {
        match read_archive(docker, id, into).await {
            Err(error) if error.kind() == BROKEN_OFF => {
                tracing::debug!("The files of container {id} are read again: {error}");
            }
            result => return result,
        }
        tokio::time::sleep(pause).await;
        // That waits until the engine answers again.
        wait::inspect(docker, id).await;
    }
    read_archive(docker, id, into).await
}

async fn read_archive(docker: &Docker, id: &str, into: &Path) -> io::Result<Gathered> {
    let options = DownloadFromContainerOptionsBuilder::default().path(OUTPUT_PATH).build();
    let pieces = docker.download_from_container(id, Some(options));
    let pieces = pieces.map_err(|error| match CallError::new("send an archive", &error) {
        refused @ CallError::Refused { .. } => io::Error::other(refused),
        lost => io::Error::new(BROKEN_OFF, lost),
    });
    let pieces = tokio_stream::StreamExt::timeout(pieces, ARCHIVE_IDLE);
    let pieces = tokio_stream::StreamExt::map(pieces, |piece| match piece {
        Ok(piece) => piece,
        Err(_) => Err(io::Error::new(BROKEN_OFF, "the engine stopped sending the archive")),
    });
    let reader = SyncIoBridge::new(StreamReader::new(Box::pin(pieces)));
    let into = into.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || unpack(reader, &into));
    unpacked.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unpack(reader: impl Read, into: &Path) -> io::Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let raw = entry.path()?.into_owned();
        gathered.entries += 1;
        if gathered.entries > OUTPUT_ENTRIES_MAX {
            gathered.skip("there are too many entries", &raw);
            return Ok(gathered);
        }
        let kind = entry.header().entry_type();
        let Some(path) = find_plain(&raw) else {
            gathered.skip("its name leads out of the directory", &raw);
            continue;
        };
        if kind.is_dir() || path.as_os_str().is_empty() {
            continue;
        }
        let is_file = kind.is_file() || kind.is_contiguous();
        if !is_file {
            gathered.skip("it is not a regular file", &path);
        } else if path.components().count() > OUTPUT_DEPTH_MAX {
            gathered.skip("it lies too deep", &path);
        } else if gathered.admits(&path, entry.size()) {
            let to = into.join(&path);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            // `into` holds only what was made here: directories and regular files, no links. What
            // was taken of the archive before is taken again.
            io::copy(&mut entry, &mut File::create(&to)?)?;
            fs::set_permissions(&to, Permissions::from_mode(FILE_MODE))?;
            gathered.files.push(path);
        }
    }
    Ok(gathered)
}

/// The path below the archive's first directory (`output/…`); `None` when any part of it is not a
/// plain name.
fn find_plain(raw: &Path) -> Option<PathBuf> {
    let is_plain = raw.components().all(|part| matches!(part, Component::Normal(_)));
    is_plain.then(|| raw.components().skip(1).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn names(gathered: &Gathered) -> Vec<String> {
        let mut names =
            gathered.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        names.sort();
        names
    }

    async fn gather(source: &Path, into: &Path) -> Gathered {
        gather_local(source, into, false).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn only_regular_files_with_plain_names_are_taken() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = from.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/deep"), "deep").unwrap();
        fs::write(root.join("top"), "top").unwrap();
        fs::set_permissions(root.join("top"), Permissions::from_mode(0o4000)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("a/etc")).unwrap();
        fs::write(root.join("new\nline"), "").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        let gathered = gather(root, into.path()).await;
        assert_eq!(names(&gathered), ["a/b/deep", "top"]);
        assert_eq!(fs::read_to_string(into.path().join("a/b/deep")).unwrap(), "deep");
        let mode = fs::metadata(into.path().join("top")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, FILE_MODE);
        let notes = gathered.notes().join("\n");
        assert!(notes.contains("2 entries were left out, first"), "{notes}");
        assert!(notes.contains("'new\\nline' was left out: a control character"), "{notes}");
        assert!(notes.contains("not UTF-8"), "{notes}");
    }

    #[tokio::test]
    async fn files_that_were_moved_before_a_restart_are_found_again() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("a")).unwrap();
        fs::write(from.path().join("a/left"), "left").unwrap();
        fs::write(from.path().join("torn"), "whole").unwrap();
        fs::create_dir(into.path().join("a")).unwrap();
        fs::write(into.path().join("a/moved"), "moved").unwrap();
        fs::write(into.path().join("torn"), "wh").unwrap();
        let gathered = gather_local(from.path(), into.path(), true).await.unwrap().unwrap();
        assert_eq!(names(&gathered), ["a/left", "a/moved", "torn"]);
        assert_eq!(fs::read_to_string(into.path().join("torn")).unwrap(), "whole");
    }

    #[tokio::test]
    async fn no_files_cost_no_folder_and_the_first_one_makes_it() {
        let (from, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let into = root.path().join("output/task-1-a1");
        for is_resumed in [false, true] {
            let gathered = gather_local(from.path(), &into, is_resumed).await.unwrap().unwrap();
            assert_eq!(names(&gathered), Vec::<String>::new());
            assert!(!into.exists());
        }
        fs::write(from.path().join("file"), "x").unwrap();
        assert_eq!(names(&gather(from.path(), &into).await), ["file"]);
        assert!(into.join("file").exists());
    }

    #[tokio::test]
    async fn depth_is_bounded() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deepest = (1..OUTPUT_DEPTH_MAX).map(|n| n.to_string()).collect::<PathBuf>();
        fs::create_dir_all(from.path().join(&deepest).join("beyond")).unwrap();
        fs::write(from.path().join(&deepest).join("file"), "").unwrap();
        fs::write(from.path().join(&deepest).join("beyond/file"), "").unwrap();
        let gathered = gather(from.path(), into.path()).await;
        assert_eq!(gathered.files, [deepest.join("file")]);
        assert!(gathered.notes()[0].contains("too deep"), "{:?}", gathered.notes());
    }

    #[test]
    fn count_and_size_are_bounded() {
        let mut gathered = Gathered::default();
        assert!(!gathered.admits(Path::new("large"), OUTPUT_BYTES_MAX + 1));
        assert!(gathered.admits(Path::new("exact"), OUTPUT_BYTES_MAX));
        assert!(!gathered.admits(Path::new("more"), 1));
        gathered.files = vec![PathBuf::new(); OUTPUT_FILES_MAX];
        assert!(!gathered.admits(Path::new("empty"), 0));
        assert_eq!(gathered.notes().len(), 2);
    }

    #[tokio::test]
    async fn a_volume_that_cannot_be_read_is_left_to_the_archive() {
        let into = tempfile::tempdir().unwrap();
        assert!(gather_local(Path::new("/no/such/volume"), into.path(), true).await.is_none());
    }

    fn archive() -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            // Written raw: the library would refuse names like these.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o000);
            header.set_cksum();
            archive.append(&header, bytes).unwrap();
        };
        add("output/", tar::EntryType::Directory, b"");
        add("output/a/file", tar::EntryType::Regular, b"content");
        add("output/../../escape", tar::EntryType::Regular, b"x");
        add("/absolute", tar::EntryType::Regular, b"x");
        add("output/link", tar::EntryType::Symlink, b"");
        add("output/fifo", tar::EntryType::Fifo, b"");
        add("output/device", tar::EntryType::Block, b"");
        archive.into_inner().unwrap()
    }

    #[test]
    fn an_archive_cannot_escape() {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("a/b");
        fs::create_dir_all(&into).unwrap();
        let gathered = unpack(archive().as_slice(), &into).unwrap();
        assert_eq!(names(&gathered), ["a/file"]);
        assert_eq!(fs::read_to_string(into.join("a/file")).unwrap(), "content");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        let notes = gathered.notes().join("\n");
        assert!(notes.contains("2 entries were left out, first 'output/../../escape'"), "{notes}");
        assert!(notes.contains("3 entries were left out"), "{notes}");
    }

    #[test]
    fn an_archive_that_was_taken_in_part_before_a_restart_is_taken_again() {
        let into = tempfile::tempdir().unwrap();
        fs::create_dir(into.path().join("a")).unwrap();
        fs::write(into.path().join("a/file"), "longer than the content").unwrap();
        let gathered = unpack(archive().as_slice(), into.path()).unwrap();
        assert_eq!(names(&gathered), ["a/file"]);
        assert_eq!(fs::read_to_string(into.path().join("a/file")).unwrap(), "content");
    }
}
