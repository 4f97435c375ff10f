//! Brings one attempt's log to the master while it is written: piece by piece, each acknowledged
//! by how much the master has, and the end by that it is safe on the master's disk. It must never
//! hold more than one piece in memory, and after a broken connection it goes on from what the
//! master has. What a power failure took from this disk may be on the master's: it must never push
//! behind bytes that it does not have itself. Read next: `logs.rs`.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use cloudai_failpoint::failpoint;
use cloudai_model::AttemptId;
use cloudai_proto::cluster::{LogPart, LogStored};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::logs::{LogLength, LogSpool};
use crate::uplink::{Client, Tries, find_exhausted};

/// Longest piece in bytes.
const PART_BYTES_MAX: usize = 512 << 10;

/// Why a push stopped before its log was whole on the master.
enum Broken {
    /// The connection, the master, or too many open files; another try may do.
    Call(Status),
    /// This worker's disk.
    Read(io::Error),
    /// The master has more than this worker had.
    Behind(Behind),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match find_exhausted(&error) {
            Some(passes) => Self::Call(passes),
            None => Self::Read(error),
        }
    }
}

/// How much the master has, and how much this worker had when it had that.
#[derive(Debug, PartialEq, Eq)]
struct Behind {
    stored: u64,
    had: u64,
}

/// How far the master is.
#[derive(Debug)]
struct Position {
    /// Bytes that it has.
    stored: u64,
    /// Bytes of an earlier process, while the master was not yet asked how many of them it has.
    unasked: Option<u64>,
}

impl Position {
    /// Takes an answer. `length` is how much of the log can be read now; what was added to that of
    /// an earlier process is none of what the master may have at the first answer.
    fn take(&mut self, stored: u64, length: u64) -> Result<(), Behind> {
        let had = self.unasked.take().unwrap_or(length);
        self.stored = stored;
        if stored > had { Err(Behind { stored, had }) } else { Ok(()) }
    }
}

/// Pushes until the log is final and the master has all of it. Gives up only when the master says
/// that it will never take it, or the spool cannot be read; why comes back in words.
pub(crate) async fn push_log(
    client: Client,
    session: &AtomicU64,
    attempt: AttemptId,
    mut spool: LogSpool,
) -> Result<(), String> {
    let mut position = Position { stored: 0, unasked: spool.found().await };
    if position.unasked.is_none() && spool.wait_beyond(0).await == LogLength::Final(0) {
        return Ok(());
    }
    let mut tries = Tries::of_session();
    loop {
        let before = position.stored;
        let pushed = push_stream(client.clone(), session, attempt, &mut spool, &mut position).await;
        let stored = position.stored;
        match pushed {
            Ok(()) => return Ok(()),
            Err(Broken::Behind(Behind { stored, had })) => {
                return Err(format!(
                    "the log ends at {stored} B: the worker's own copy went back to {had} B, as \
                     after a power failure, so that what follows has no place"
                ));
            }
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

/// One call: pieces up, lengths down, until the log is whole on the master and safe there.
async fn push_stream(
    mut client: Client,
    session: &AtomicU64,
    attempt: AttemptId,
    spool: &mut LogSpool,
    position: &mut Position,
) -> Result<(), Broken> {
    let mut reader = spool.reader();
    let (parts, receiver) = mpsc::channel(1);
    let mut answers: Option<Streaming<LogStored>> = None;
    let mut receiver = Some(receiver);
    loop {
        let offset = position.stored;
        let is_unasked = position.unasked.is_some();
        let is_whole = !is_unasked
            && matches!(spool.wait_beyond(offset).await, LogLength::Final(end) if end <= offset);
        if is_whole && let Some(answers) = answers {
            drop(parts);
            failpoint!("worker.log.before_sync");
            return wait_until_synced(answers, position).await;
        }
        // A part without data asks how much the master has. It may be less than it said in a call
        // that broke: only the end of a call makes a log safe.
        let data =
            if is_unasked { Vec::new() } else { reader.read(offset, PART_BYTES_MAX).await? };
        let session = session.load(Ordering::Relaxed);
        let part = LogPart { attempt: attempt.to_string(), session, offset, data };
        let gone = |_| Broken::Call(Status::unavailable("the master ended the call"));
        failpoint!("worker.log.before_part");
        parts.send(part).await.map_err(gone)?;
        // The call is made with its first part already on the way: the master may answer only then.
        if let Some(receiver) = receiver.take() {
            let call = client.push_log(ReceiverStream::new(receiver)).await;
            answers = Some(call.map_err(Broken::Call)?.into_inner());
        }
        let stored = next_stored(answers.as_mut()).await?;
        position.take(stored, spool.length()).map_err(Broken::Behind)?;
        failpoint!("worker.log.after_part");
    }
}

/// The end of the parts is answered once more, when the log is safe on the master's disk.
async fn wait_until_synced(
    mut answers: Streaming<LogStored>,
    position: &mut Position,
) -> Result<(), Broken> {
    let whole = position.stored;
    position.stored = next_stored(Some(&mut answers)).await?;
    if position.stored < whole {
        return Err(Broken::Call(Status::unavailable("the master lost a part of the log")));
    }
    Ok(())
}

async fn next_stored(answers: Option<&mut Streaming<LogStored>>) -> Result<u64, Broken> {
    let answer = match answers {
        Some(answers) => answers.message().await.map_err(Broken::Call)?,
        None => None,
    };
    let ended = || Broken::Call(Status::unavailable("the master ended the call"));
    Ok(answer.ok_or_else(ended)?.stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_may_have_what_this_worker_has_and_no_more() {
        let answer = |unasked, stored, length| {
            let mut position = Position { stored: 0, unasked };
            position.take(stored, length).map(|()| (position.stored, position.unasked))
        };
        assert_eq!(answer(None, 10, 10), Ok((10, None)));
        assert_eq!(answer(None, 11, 10), Err(Behind { stored: 11, had: 10 }));
        assert_eq!(answer(Some(10), 10, 10), Ok((10, None)));
        // What was written since the restart is not what the master has at these offsets.
        assert_eq!(answer(Some(10), 11, 20), Err(Behind { stored: 11, had: 10 }));
        assert_eq!(answer(Some(0), 1, 20), Err(Behind { stored: 1, had: 0 }));
        assert_eq!(answer(Some(0), 0, 20), Ok((0, None)));
    }
}
