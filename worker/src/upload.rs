//! Brings the files of an attempt's `/output` to the master, before its end is reported. It must
//! never hold more than a few pieces in memory. A try that failed begins again from the first file:
//! the master keeps an upload only when its last piece has come.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cloudai_failpoint::failpoint;
use cloudai_model::{AttemptId, TaskSpec};
use cloudai_proto::cluster::FileChunk;
use tokio::fs::File;
use tokio::io::{self, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::clock;
use crate::uplink::{Client, Tries, find_exhausted};

/// Longest piece in bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// How many pieces wait for the connection.
const CHUNKS_WAITING_MAX: usize = 2;

/// What is uploaded, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// The attempt, for people.
    pub(crate) attempt: AttemptId,
    /// The task id of the wire: the attempt's text, or what a unary master called it.
    pub(crate) task_id: String,
    /// The folder of the files.
    pub(crate) folder: PathBuf,
    /// The files, relative to the folder.
    pub(crate) files: Vec<PathBuf>,
}

/// Uploads until the master has everything. Gives up only when the master says that it will never
/// take it, or a file cannot be read; what went wrong comes back in words.
pub(crate) async fn upload(
    mut client: Client,
    session: &AtomicU64,
    spec: &TaskSpec,
    upload: &Upload,
    mut tries: Tries,
) -> Result<(), String> {
    if upload.files.is_empty() {
        return Ok(());
    }
    loop {
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        let chunk = FileChunk {
            task_id: upload.task_id.clone(),
            user_id: spec.origin.user.clone(),
            task_name: spec.name.clone().unwrap_or_default(),
            timestamp: (clock::wall().unix_ms() / 1000).cast_signed(),
            session: session.load(Ordering::Relaxed),
            ..FileChunk::default()
        };
        let (read, answer) = tokio::join!(
            send_files(upload, chunk, chunks),
            client.upload_task_files(ReceiverStream::new(receiver)),
        );
        if let Err(error) = read {
            if let Some(passes) = find_exhausted(&error)
                && tries.again(&passes).await
            {
                continue;
            }
            return Err(format!("cannot read the files of {}: {error}", upload.attempt));
        }
        match answer.map(tonic::Response::into_inner) {
            Ok(ack) if ack.success => {
                failpoint!("worker.upload.taken");
                return Ok(());
            }
            Ok(ack) => return Err(format!("the master does not take the files: {}", ack.message)),
            Err(status) if tries.again(&status).await => {}
            Err(status) => {
                return Err(format!("the master does not take the files: {}", status.message()));
            }
        }
    }
}

/// Reads the files in order and sends them in pieces. A receiver that is gone ends it early: the
/// call's own answer says why.
async fn send_files(
    upload: &Upload,
    blank: FileChunk,
    chunks: mpsc::Sender<FileChunk>,
) -> io::Result<()> {
    let last = upload.files.len() - 1;
    for (index, name) in upload.files.iter().enumerate() {
        let chunk =
            FileChunk { file_path: wire_path(name), is_last_file: index == last, ..blank.clone() };
        if !send_file(&upload.folder.join(name), chunk, &chunks).await? {
            break;
        }
    }
    Ok(())
}

/// Whether the receiver is still there.
async fn send_file(
    path: &Path,
    blank: FileChunk,
    chunks: &mpsc::Sender<FileChunk>,
) -> io::Result<bool> {
    let mut file = File::open(path).await?;
    let mut data = read_chunk(&mut file).await?;
    loop {
        // A file's last piece is known by what follows it, so that an empty file has one too.
        let next =
            if data.len() < CHUNK_BYTES_MAX { vec![] } else { read_chunk(&mut file).await? };
        let is_last_chunk = next.is_empty();
        let chunk = FileChunk { data, is_last_chunk, ..blank.clone() };
        failpoint!("worker.upload.before_chunk");
        if chunks.send(chunk).await.is_err() {
            return Ok(false);
        }
        failpoint!("worker.upload.after_chunk");
        if is_last_chunk {
            return Ok(true);
        }
        data = next;
    }
}

async fn read_chunk(file: &mut File) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    file.take(CHUNK_BYTES_MAX as u64).read_to_end(&mut data).await?;
    Ok(data)
}

/// With `/` between the parts, whatever this machine uses. Bytes that are no text are replaced.
fn wire_path(path: &Path) -> String {
    let parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_go_out_in_pieces_and_the_last_ones_say_so() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let exact = vec![7; CHUNK_BYTES_MAX];
        let long = vec![8; CHUNK_BYTES_MAX + 1];
        for (name, data) in [("empty", &[][..]), ("exact", &exact), ("sub/long", &long)] {
            std::fs::write(folder.path().join(name), data).unwrap();
        }
        let upload = Upload {
            attempt: "task-1-a1".parse().unwrap(),
            task_id: "task-1-a1".into(),
            folder: folder.path().to_owned(),
            files: ["empty", "exact", "sub/long"].map(PathBuf::from).to_vec(),
        };
        let (sender, mut receiver) = mpsc::channel(16);
        send_files(&upload, FileChunk::default(), sender).await.unwrap();
        let mut got = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            let FileChunk { file_path, data, is_last_chunk, is_last_file, .. } = chunk;
            got.push((file_path, data.len(), is_last_chunk, is_last_file));
        }
        let want = [
            ("empty", 0, true, false),
            ("exact", CHUNK_BYTES_MAX, true, false),
            ("sub/long", CHUNK_BYTES_MAX, false, true),
            ("sub/long", 1, true, true),
        ];
        assert_eq!(got, want.map(|(name, length, chunk, file)| (name.into(), length, chunk, file)));
    }
}
