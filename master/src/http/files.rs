//! The files of a task's /output: a list, and each one's bytes.
//!
//! Names come from containers and from clients, so paths are only ever resolved by `cap-std`
//! below the attempt's own directory; symbolic links and everything that is not a regular file do
//! not exist here.

use std::io;
use std::path::{Component, Path, PathBuf};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use cloudai_api::{ErrorBody, ErrorCode, FileList, FileView};
use cloudai_model::{AttemptId, TaskId};
use futures_util::StreamExt as _;
use tokio_util::io::ReaderStream;

use super::errors::Failure;
use super::extract::{ApiPath, task_id};
use super::{App, Shared, tasks, wait};

/// Most files in a list; a task that has more is listed up to here.
const FILES_MAX: usize = 10_000;
/// Deepest directory that is looked into.
const DEPTH_MAX: usize = 32;
/// Bytes of a download that are read at a time.
const PIECE_LEN: usize = 128 << 10;

/// Lists the files of a task's last attempt.
#[utoipa::path(
    get, path = "/tasks/{id}/files", tag = "tasks", operation_id = "listTaskFiles",
    params(("id" = String, Path, description = "`42`, `task-42` or `task-42.7`")),
    responses((status = 200, body = FileList), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<FileList>, Failure> {
    let files = match last_attempt(&app, task_id(&id)?).await? {
        Some(attempt) => list_output(app.files.output_dir(attempt)).await?,
        None => Vec::new(),
    };
    Ok(Json(FileList { files }))
}

/// Gives a file's bytes.
#[utoipa::path(
    get, path = "/tasks/{id}/files/{*path}", tag = "tasks", operation_id = "downloadTaskFile",
    params(
        ("id" = String, Path, description = "`42`, `task-42` or `task-42.7`"),
        ("path" = String, Path, description = "the file's path as the list has it"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn download(
    State(app): State<App>,
    ApiPath((id, path)): ApiPath<(String, String)>,
) -> Result<Response, Failure> {
    let task = task_id(&id)?;
    let missing = || {
        let message = format!("{task} has no output file '{}'", path.escape_debug());
        Failure::new(ErrorCode::FileNotFound, message)
            .hint(format!("GET /api/v1/tasks/{task}/files lists them"))
    };
    let place = wait::place(&app)?;
    let attempt = last_attempt(&app, task).await?.ok_or_else(missing)?;
    let dir = app.files.output_dir(attempt);
    let wanted = PathBuf::from(&path);
    let opened = blocking(move || open_regular(&dir, &wanted)).await;
    let (file, length) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return Err(missing()),
        Err(error) => return Err(Failure::internal("the file cannot be read", &error)),
    };
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE_LEN);
    let stream = stream.map(move |piece| {
        let _held = &place;
        piece
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

async fn last_attempt(app: &Shared, task: TaskId) -> Result<Option<AttemptId>, Failure> {
    let record = tasks::read_task(app, task).await?;
    tasks::last_attempt(app, &record).await
}

/// The regular files below `dir`, by path; none when it does not exist.
pub(super) async fn list_output(dir: PathBuf) -> Result<Vec<FileView>, Failure> {
    let listed = blocking(move || {
        let mut files = Vec::new();
        if let Some(root) = open_dir(&dir)? {
            walk(&root, "", 0, &mut files)?;
        }
        files.sort_by(|a: &FileView, b| a.path.cmp(&b.path));
        Ok(files)
    });
    listed.await.map_err(|error| Failure::internal("the output files cannot be listed", &error))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn open_dir(path: &Path) -> io::Result<Option<Dir>> {
    match Dir::open_ambient_dir(path, ambient_authority()) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn walk(dir: &Dir, prefix: &str, depth: usize, files: &mut Vec<FileView>) -> io::Result<()> {
    for entry in dir.entries()? {
        let entry = entry?;
        // A name that is no UTF-8 has no place in JSON, and so none in a request.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        // This is the type of the entry itself: a symbolic link is neither.
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&entry.open_dir()?, &format!("{path}/"), depth + 1, files)?;
        } else if kind.is_file() {
            if files.len() >= FILES_MAX {
                return Ok(());
            }
            match entry.metadata() {
                Ok(found) => files.push(FileView { path, size_bytes: found.len() }),
                // Gone since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The file and its length; `None` when there is no regular file at `wanted`, or only one that a
/// symbolic link leads to.
fn open_regular(dir: &Path, wanted: &Path) -> io::Result<Option<(std::fs::File, u64)>> {
    let Some(root) = open_dir(dir)? else { return Ok(None) };
    let plain = wanted.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || wanted.as_os_str().is_empty() {
        return Ok(None);
    }
    // Links are looked for on the way; should one appear meanwhile, it still cannot lead out.
    for part in wanted.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        match root.symlink_metadata(part) {
            Ok(found) if found.is_symlink() => return Ok(None),
            Ok(found) if part == wanted && !found.is_file() => return Ok(None),
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let file = match root.open(wanted) {
        Ok(file) => file.into_std(),
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    Ok(found.is_file().then_some((file, found.len())))
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidInput | InvalidFilename | PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_below_the_output_exist() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("output");
        std::fs::create_dir_all(output.join("a/b")).unwrap();
        std::fs::write(home.path().join("secret"), "no").unwrap();
        std::fs::write(output.join("a/b/result.json"), "yes").unwrap();
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, output.join(name)).unwrap();
        };
        link("../secret", "out");
        link("a", "inner");
        link("a/b/result.json", "file-link");
        let socket = std::os::unix::net::UnixListener::bind(output.join("socket")).unwrap();
        let found = |path: &str| open_regular(&output, Path::new(path)).unwrap().is_some();
        assert!(found("a/b/result.json"));
        for path in [
            "",
            ".",
            "..",
            "/",
            "a",
            "a/b",
            "../secret",
            "a/../../secret",
            "/etc/passwd",
            "out",
            "inner/b/result.json",
            "file-link",
            "socket",
            "a/b/result.json/x",
            "none",
            "a\0b",
        ] {
            assert!(!found(path), "{path:?}");
        }
        drop(socket);
        let mut listed = Vec::new();
        walk(&open_dir(&output).unwrap().unwrap(), "", 0, &mut listed).unwrap();
        let paths: Vec<_> = listed.into_iter().map(|file| file.path).collect();
        assert_eq!(paths, ["a/b/result.json"]);
    }
}
