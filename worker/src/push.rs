//! Brings one attempt's log to the master while it is written: piece by piece, each acknowledged
//! by how much the master has on disk. It must never hold more than one piece in memory, and after
//! a broken connection it goes on from what the master has. Read next: `logs.rs`.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudai_failpoint::failpoint;
use cloudai_model::AttemptId;
use cloudai_proto::cluster::{LogPart, LogStored};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::logs::{LogLength, LogSpool};
use crate::uplink::{Client, Tries};

/// Longest piece in bytes.
const PART_BYTES_MAX: usize = 512 << 10;

/// Why a push stopped before its log was whole on the master.
enum Broken {
    /// The connection or the master; another try may do.
    Call(Status),
    /// This worker's disk.
    Read(io::Error),
}

/// Pushes until the log is final and the master has all of it. Gives up only when the master says
/// that it will never take it, or the spool cannot be read; why comes back in words.
pub(crate) async fn push_log(
    client: Client,
    session: &AtomicU64,
    attempt: AttemptId,
    mut spool: LogSpool,
) -> Result<(), String> {
    if spool.wait_beyond(0).await == LogLength::Final(0) {
        return Ok(());
    }
    let mut tries = Tries::new();
    let mut stored = 0;
    loop {
        let before = stored;
        match push_stream(client.clone(), session, attempt, &mut spool, &mut stored).await {
            Ok(()) => return Ok(()),
            Err(Broken::Call(status)) if tries.again(&status).await => {}
            Err(Broken::Call(status)) => {
                let why = status.message();
                return Err(format!("the master does not take the log beyond {stored} B: {why}"));
            }
            Err(Broken::Read(error)) => {
                let path = spool.path().display();
                return Err(format!(
                    "the log is lost beyond {stored} B: cannot read {path}: {error}"
                ));
            }
        }
        if stored > before {
            tries.made_progress();
        }
    }
}

/// One call: pieces up, lengths down, until the log is whole on the master.
async fn push_stream(
    mut client: Client,
    session: &AtomicU64,
    attempt: AttemptId,
    spool: &mut LogSpool,
    stored: &mut u64,
) -> Result<(), Broken> {
    let mut reader = spool.reader();
    let (parts, receiver) = mpsc::channel(1);
    let mut answers: Option<Streaming<LogStored>> = None;
    let mut receiver = Some(receiver);
    loop {
        match spool.wait_beyond(*stored).await {
            LogLength::Final(length) if length <= *stored => {
                drop(parts);
                failpoint!("worker.log.before_sync");
                return wait_until_synced(answers, length).await;
            }
            LogLength::Open(_) | LogLength::Final(_) => {}
        }
        let data = reader.read(*stored, PART_BYTES_MAX).await.map_err(Broken::Read)?;
        let part = LogPart {
            attempt: attempt.to_string(),
            session: session.load(Ordering::Relaxed),
            offset: *stored,
            data,
        };
        let gone = |_| Broken::Call(Status::unavailable("the master ended the call"));
        failpoint!("worker.log.before_part");
        parts.send(part).await.map_err(gone)?;
        // The call is made with its first part already on the way: the master may answer only then.
        if let Some(receiver) = receiver.take() {
            let call = client.push_log(ReceiverStream::new(receiver)).await;
            answers = Some(call.map_err(Broken::Call)?.into_inner());
        }
        let answer = match &mut answers {
            Some(answers) => answers.message().await.map_err(Broken::Call)?,
            None => None,
        };
        let ended = || Broken::Call(Status::unavailable("the master ended the call"));
        *stored = answer.ok_or_else(ended)?.stored;
        failpoint!("worker.log.after_part");
    }
}

/// The end of the parts is answered once more, when the log is safe on the master's disk.
async fn wait_until_synced(
    answers: Option<Streaming<LogStored>>,
    length: u64,
) -> Result<(), Broken> {
    let Some(mut answers) = answers else { return Ok(()) };
    while let Some(answer) = answers.message().await.map_err(Broken::Call)? {
        if answer.stored < length {
            return Err(Broken::Call(Status::unavailable("the master lost a part of the log")));
        }
    }
    Ok(())
}
