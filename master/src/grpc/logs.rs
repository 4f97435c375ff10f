//! A worker pushes an attempt's log by offset. Each part is answered with the stored length; when
//! the worker has no more to say, the log is synced to disk and answered once more.

use std::sync::Arc;

use cloudai_failpoint::failpoint;
use cloudai_model::{AttemptId, Session};
use cloudai_proto::cluster::{LogPart, LogStored};
use cloudai_proto::convert::from_wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Outbound, Services, io_status};

/// Longest part in bytes; our own worker's are half as long.
const PART_LEN_MAX: usize = 1 << 20;
/// Most answers that wait for a slow worker.
const ANSWERS_LEN_MAX: usize = 16;

pub(super) fn receive(services: Services, parts: Streaming<LogPart>) -> Outbound<LogStored> {
    let (answers, stored) = mpsc::channel(ANSWERS_LEN_MAX);
    tokio::spawn(async move {
        if let Err(status) = take_parts(&services, parts, &answers).await {
            // A worker that is gone does not read why.
            drop(answers.send(Err(status)).await);
        }
    });
    Box::pin(ReceiverStream::new(stored))
}

async fn take_parts(
    services: &Services,
    mut parts: Streaming<LogPart>,
    answers: &mpsc::Sender<Result<LogStored, Status>>,
) -> Result<(), Status> {
    let mut current: Option<AttemptId> = None;
    while let Some(part) = parts.message().await? {
        let attempt = from_wire::attempt(&part.attempt)?;
        if current != Some(attempt) {
            if current.is_some() {
                return Err(Status::invalid_argument("one call carries one attempt's log"));
            }
            let session = (part.session != 0).then_some(Session(part.session));
            services.check_holder(attempt, session).await?;
            current = Some(attempt);
        }
        if part.data.len() > PART_LEN_MAX {
            let words = format!("a part of a log has at most {PART_LEN_MAX} bytes");
            return Err(Status::invalid_argument(words));
        }
        let files = Arc::clone(&services.files);
        failpoint!("master.log.before_append");
        let stored = on_disk(move || files.append_log(attempt, part.offset, &part.data)).await?;
        failpoint!("master.log.after_append");
        if answers.send(Ok(LogStored { stored })).await.is_err() {
            return Ok(());
        }
    }
    if let Some(attempt) = current {
        failpoint!("master.log.before_sync");
        let files = Arc::clone(&services.files);
        let stored = on_disk(move || {
            files.sync_log(attempt)?;
            files.log_len(attempt)
        })
        .await?;
        failpoint!("master.log.after_sync");
        drop(answers.send(Ok(LogStored { stored })).await);
    }
    Ok(())
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::aborted("the master is stopping"))?.map_err(|error| io_status(&error))
}
