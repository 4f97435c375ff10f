//! One attempt from start to clean-up: the executor runs it, its log is pushed meanwhile, its files
//! are uploaded, and what it left on the disk stays until the ledger drops it. One tokio task an
//! attempt owns all of that. It must never decide anything about the attempt: the ledger does.
//! Read next: `session.rs`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use cloudai_failpoint::failpoint;
use cloudai_model::{AttemptId, Cause, Outcome, Session, TaskSpec, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::LiveCount;
use crate::adopt::{How, Resumed};
use crate::clock;
use crate::data_dir::DataDir;
use crate::engine::Executor;
use crate::executor::docker::Begin;
use crate::executor::{Assignment, AttemptRecord, Ended, Progress, RunChannels, StopRequest};
use crate::logs::{self, LogSpool, LogWriter};
use crate::push::push_log;
use crate::uplink::{Client, Tries};
use crate::upload::{Upload, upload};

/// How much progress waits while the session is busy.
const PROGRESS_LEN_MAX: usize = 16;

/// What becomes known of an attempt.
#[derive(Debug)]
pub(crate) struct RunEvent {
    /// Which.
    pub(crate) attempt: AttemptId,
    /// What.
    pub(crate) what: RunWhat,
}

/// See [`RunEvent`].
#[derive(Debug)]
pub(crate) enum RunWhat {
    /// Words for people.
    Note(Timestamp, String),
    /// Its container started.
    Started(Timestamp),
    /// The executor is done.
    Ended(Outcome, Timestamp),
    /// The master has its log and files.
    Delivered,
}

/// What all runs share.
#[derive(Debug)]
pub(crate) struct RunContext {
    pub(crate) executor: Executor,
    pub(crate) dirs: DataDir,
    /// Logs and files go here; a connection of their own.
    pub(crate) uplink: Client,
    /// The session that uploads name; 0 before the first.
    pub(crate) session: AtomicU64,
    /// Cancelled at the first welcome: the master takes nothing before.
    pub(crate) welcomed: CancellationToken,
    /// Of the machine.
    pub(crate) boot_id: String,
    pub(crate) live: LiveRuns,
    pub(crate) live_count: LiveCount,
    /// Most bytes of disk that one log takes.
    pub(crate) log_bytes_max: u64,
    /// Every run; closed when the process ends.
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the process ends: what is not delivered by then stays undelivered, and what
    /// is not forgotten stays on the disk for the next process.
    pub(crate) closing: CancellationToken,
}

/// The attempts that have something on this machine, by the task id of the wire: what the unary
/// server can stop and read.
#[derive(Debug, Default)]
pub(crate) struct LiveRuns(Mutex<HashMap<String, LiveRun>>);

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct LiveRun {
    /// Set when it shall stop; then only its grace becomes less.
    pub(crate) stop: watch::Sender<Option<StopRequest>>,
    /// Its log so far.
    pub(crate) spool: LogSpool,
    /// How long it has between SIGTERM and SIGKILL.
    pub(crate) grace_ms: u64,
}

impl LiveRun {
    /// Asks it to stop; false when somebody did before. Of several requests the first gives the
    /// cause, and the one with the least time the grace.
    pub(crate) fn request_stop(&self, request: StopRequest) -> bool {
        let mut is_first = false;
        self.stop.send_if_modified(|stop| match stop {
            None => {
                *stop = Some(request);
                is_first = true;
                true
            }
            Some(known) => {
                let is_hurried = request.grace_ms < known.grace_ms;
                known.grace_ms = known.grace_ms.min(request.grace_ms);
                is_hurried
            }
        });
        is_first
    }
}

impl LiveRuns {
    /// The run with this task id.
    pub(crate) fn find(&self, task_id: &str) -> Option<LiveRun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(task_id).cloned()
    }

    fn insert(&self, task_id: String, run: LiveRun) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task_id, run);
    }

    /// Asks every run that nobody stopped yet to stop.
    pub(crate) fn stop_all(&self, cause: Cause) {
        for run in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            run.request_stop(StopRequest { cause, grace_ms: run.grace_ms });
        }
    }

    pub(crate) fn remove(&self, task_id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(task_id);
    }
}

/// The session's hand on a run.
#[derive(Debug)]
pub(crate) struct RunHandle {
    /// Stops it.
    pub(crate) live: LiveRun,
    /// Cancelled when nothing of the attempt is needed any more.
    pub(crate) drop: CancellationToken,
}

/// A run that is prepared: both ends of everything that it needs.
pub(crate) struct Prepared {
    pub(crate) assignment: Assignment,
    pub(crate) task_id: String,
    pub(crate) channels: RunChannels,
    pub(crate) progress: mpsc::Receiver<Progress>,
    pub(crate) run: LiveRun,
}

/// The two ends of an attempt's log.
pub(crate) type Log = (LogWriter, LogSpool);

/// Makes the channels of an attempt and shows it to the unary server.
pub(crate) fn prepare(
    context: &RunContext,
    assignment: Assignment,
    task_id: String,
    (log, spool): Log,
    record: AttemptRecord,
) -> Prepared {
    let (sender, progress) = mpsc::channel(PROGRESS_LEN_MAX);
    let (stop, stopped) = watch::channel(None);
    let run = LiveRun { stop, spool, grace_ms: assignment.spec.limits.grace_ms };
    context.live.insert(task_id.clone(), run.clone());
    let output_dir = context.dirs.output_path(assignment.attempt);
    let channels = RunChannels { progress: sender, log, stop: stopped, output_dir, record };
    Prepared { assignment, task_id, channels, progress, run }
}

/// Starts an attempt of the session. What becomes known of it goes to `events`.
pub(crate) fn start(
    context: &Arc<RunContext>,
    attempt: AttemptId,
    session: Session,
    spec: Arc<TaskSpec>,
    events: mpsc::Sender<RunEvent>,
) -> RunHandle {
    let log = logs::open(context.dirs.spool_path(attempt), context.log_bytes_max);
    let assignment = Assignment { attempt, session, spec };
    spawn(context, assignment, log, How::Run(Begin::New), events)
}

/// Goes on with an attempt of an earlier process. Nothing of it goes to the master before the first
/// welcome.
pub(crate) fn resume(
    context: &Arc<RunContext>,
    resumed: Resumed,
    events: mpsc::Sender<RunEvent>,
) -> RunHandle {
    let Resumed { kept, how, log } = resumed;
    let assignment = Assignment { attempt: kept.attempt, session: kept.session, spec: kept.spec };
    spawn(context, assignment, log, how, events)
}

fn spawn(
    context: &Arc<RunContext>,
    assignment: Assignment,
    log: Log,
    how: How,
    events: mpsc::Sender<RunEvent>,
) -> RunHandle {
    let attempt = assignment.attempt;
    let record = if context.executor.outlives_process() {
        context.dirs.record(attempt)
    } else {
        AttemptRecord::unkept()
    };
    let prepared = prepare(context, assignment, attempt.to_string(), log, record);
    let handle = prepared.run.clone();
    let drop = CancellationToken::new();
    context.tracker.spawn(live(Arc::clone(context), prepared, how, events, drop.clone()));
    RunHandle { live: handle, drop }
}

async fn live(
    context: Arc<RunContext>,
    prepared: Prepared,
    how: How,
    events: mpsc::Sender<RunEvent>,
    drop: CancellationToken,
) {
    let Prepared { assignment, task_id, mut channels, progress, run } = prepared;
    let attempt = assignment.attempt;
    let spec = Arc::clone(&assignment.spec);
    let tell = |what| async {
        // A session that is gone needs no news: the process ends.
        let _ = events.send(RunEvent { attempt, what }).await;
    };
    let execute = async {
        let begin = match how {
            How::Run(begin) => begin,
            How::Deliver(ended) => {
                // The ledger knows the end. What the disk refuses of it, the next process tells as
                // this one does.
                let _ = context.closing.run_until_cancelled(channels.log.finish()).await;
                return ended.files;
            }
        };
        let run = execute_kept(&context, assignment, channels, begin);
        let (ended, ()) = tokio::join!(run, forward(attempt, progress, &events));
        failpoint!("worker.run.ended");
        tell(RunWhat::Ended(ended.outcome, ended.at)).await;
        ended.files
    };
    let push = async {
        context.welcomed.cancelled().await;
        push_log(context.uplink.clone(), &context.session, attempt, run.spool).await
    };
    let (files, pushed) = tokio::join!(execute, while_wanted(&context, &drop, push));
    if let Some(Err(why)) = pushed {
        tracing::warn!("The log of {attempt} is not whole: {why}");
        tell(RunWhat::Note(clock::wall(), why)).await;
    }
    let folder = context.dirs.output_path(attempt);
    let to_upload = Upload { attempt, task_id: task_id.clone(), folder, files };
    let deliver = async {
        context.welcomed.cancelled().await;
        let (uplink, tries) = (context.uplink.clone(), Tries::of_session());
        let uploading = upload(uplink, &context.session, &spec, &to_upload, tries);
        if let Err(why) = uploading.await {
            tracing::warn!("Files of {attempt} are lost: {why}");
            tell(RunWhat::Note(clock::wall(), why)).await;
        }
        tell(RunWhat::Delivered).await;
        std::future::pending::<()>().await;
    };
    while_wanted(&context, &drop, deliver).await;
    context.live.remove(&task_id);
    // Without the master's word, the next process delivers it again.
    if drop.is_cancelled() {
        failpoint!("worker.forget.before_removal");
        context.dirs.remove(attempt).await;
        failpoint!("worker.forget.after_removal");
    }
}

/// Goes on until it is done, or of no use: the attempt is dropped, or the process ends.
async fn while_wanted<T>(
    context: &RunContext,
    drop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Option<T> {
    drop.run_until_cancelled(context.closing.run_until_cancelled(work)).await.flatten()
}

async fn forward(
    attempt: AttemptId,
    mut progress: mpsc::Receiver<Progress>,
    events: &mpsc::Sender<RunEvent>,
) {
    while let Some(progress) = progress.recv().await {
        let what = match progress {
            Progress::Note(text) => RunWhat::Note(clock::wall(), text),
            Progress::Started(at) => RunWhat::Started(at),
        };
        if events.send(RunEvent { attempt, what }).await.is_err() {
            return;
        }
    }
}

/// Runs an attempt of the session, of which a record is kept from its beginning on.
async fn execute_kept(
    context: &RunContext,
    assignment: Assignment,
    channels: RunChannels,
    begin: Begin,
) -> Ended {
    if matches!(begin, Begin::New) {
        let Assignment { attempt, session, spec } = assignment.clone();
        failpoint!("worker.accepted.before_record");
        let kept = channels.record.accepted(attempt, session, &context.boot_id, spec).await;
        if let Err(error) = kept {
            let why = format!("the worker cannot keep its record: {error}");
            return Ended::unstarted(Outcome::new(Cause::Infra, why));
        }
        failpoint!("worker.accepted.after_record");
    }
    context.executor.run(assignment, channels, begin).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_stop_gives_the_cause_and_the_shortest_the_grace() {
        let dir = tempfile::tempdir().unwrap();
        let (_writer, spool) = logs::open(dir.path().join("log"), 2 << 20);
        let (stop, stopped) = watch::channel(None);
        let run = LiveRun { stop, spool, grace_ms: 9 };
        let request = |cause, grace_ms| run.request_stop(StopRequest { cause, grace_ms });
        assert!(request(Cause::Cancelled, 7));
        assert!(!request(Cause::WorkerLost, 5));
        assert!(!request(Cause::WorkerLost, 6));
        assert_eq!(*stopped.borrow(), Some(StopRequest { cause: Cause::Cancelled, grace_ms: 5 }));
    }
}
