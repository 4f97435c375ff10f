//! The files of `/output`, as a worker uploads them. Names come from a container and are hostile:
//! they are only ever used relative to the attempt's own directory handle.

use std::io::Write as _;
use std::path::{Component, Path};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use cloudai_model::{AttemptId, Session};
use cloudai_proto::cluster::{FileChunk, FileUploadAck};
use cloudai_proto::convert::from_wire;
use tonic::{Status, Streaming};

use super::{Services, io_status};

/// Most files of one attempt.
const FILES_MAX: i32 = 10_000;
/// Most bytes of one attempt's files together.
const BYTES_MAX: u64 = 64 << 30;
/// Longest path in bytes.
const PATH_LEN_MAX: usize = 1_024;

/// Takes one attempt's files. The same upload again writes the same files again.
pub(super) async fn receive(
    services: &Services,
    mut chunks: Streaming<FileChunk>,
) -> Result<FileUploadAck, Status> {
    let mut upload: Option<Upload> = None;
    while let Some(chunk) = chunks.message().await? {
        let attempt = from_wire::attempt(&chunk.task_id)?;
        let mut open = match upload.take() {
            Some(open) if open.attempt == attempt => open,
            Some(_) => return Err(Status::invalid_argument("one call carries one task's files")),
            None => begin(services, attempt, chunk.session).await?,
        };
        let written = tokio::task::spawn_blocking(move || open.take(&chunk).map(|()| open)).await;
        let written = written.map_err(|_| Status::aborted("the master is stopping"))?;
        upload = Some(written?);
    }
    let files_received = upload.map_or(0, |upload| upload.files);
    let message = format!("{files_received} files received");
    Ok(FileUploadAck { success: true, message, files_received })
}

async fn begin(services: &Services, attempt: AttemptId, session: u64) -> Result<Upload, Status> {
    services.check_holder(attempt, (session != 0).then_some(Session(session))).await?;
    let path = services.files.output_dir(attempt);
    let open = move || {
        std::fs::create_dir_all(&path)?;
        Dir::open_ambient_dir(&path, ambient_authority())
    };
    let dir = tokio::task::spawn_blocking(open).await;
    let dir = dir.map_err(|_| Status::aborted("the master is stopping"))?;
    let dir = dir.map_err(|error| io_status(&error))?;
    Ok(Upload { attempt, dir, file: None, files: 0, bytes: 0 })
}

struct Upload {
    attempt: AttemptId,
    dir: Dir,
    /// The file that is being written, with its name.
    file: Option<(String, File)>,
    files: i32,
    bytes: u64,
}

impl Upload {
    fn take(&mut self, chunk: &FileChunk) -> Result<(), Status> {
        self.bytes += chunk.data.len() as u64;
        if self.bytes > BYTES_MAX {
            return Err(Status::resource_exhausted("the files are larger than 64 GiB together"));
        }
        let current = self.file.as_ref().is_some_and(|(name, _)| *name == chunk.file_path);
        if !current {
            self.open(&chunk.file_path)?;
        }
        if let Some((_, file)) = &mut self.file {
            file.write_all(&chunk.data).map_err(|error| io_status(&error))?;
            if chunk.is_last_chunk {
                file.sync_data().map_err(|error| io_status(&error))?;
                self.file = None;
            }
        }
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<(), Status> {
        let path = inside(name)?;
        if self.files >= FILES_MAX {
            return Err(Status::resource_exhausted("a task has more than 10,000 files"));
        }
        self.files += 1;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.dir.create_dir_all(parent).map_err(|error| io_status(&error))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = self.dir.open_with(path, &options).map_err(|error| io_status(&error))?;
        self.file = Some((name.to_owned(), file));
        Ok(())
    }
}

/// The name as a path of plain components; the directory handle would stop others as well, but
/// only after it had made their parents.
fn inside(name: &str) -> Result<&Path, Status> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let named = path.file_name().is_some() && !name.ends_with('/');
    if plain && named && name.len() <= PATH_LEN_MAX && !name.contains('\0') {
        return Ok(path);
    }
    let shown: String = name.chars().take(80).collect();
    Err(Status::invalid_argument(format!("file_path '{}' is refused", shown.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", ".", "a/", "a\0b", &"x".repeat(1025)] {
            assert!(inside(name).is_err(), "{name:?}");
        }
        for name in ["result.json", "a/b/c", "..x", "a b"] {
            assert!(inside(name).is_ok(), "{name:?}");
        }
    }
}
