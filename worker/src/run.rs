//! One attempt from start to clean-up: the executor runs it, its log is pushed meanwhile, its files
//! are uploaded, and what it left on the disk stays until the ledger drops it. One tokio task an
//! attempt owns all of that. It must never decide anything about the attempt: the ledger does.
//! Read next: `session.rs`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use cloudai_model::{AttemptId, Cause, Outcome, Session, TaskSpec, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::data_dir::DataDir;
use crate::engine::Executor;
use crate::executor::{Assignment, Ended, Progress, RunChannels, StopRequest};
use crate::logs::{self, LogSpool};
use crate::push::push_log;
use crate::uplink::Client;
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
    pub(crate) live: LiveRuns,
    /// Most bytes of disk that one log takes.
    pub(crate) log_bytes_max: u64,
    /// Every run; closed when the process ends.
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the process ends: what is not delivered by then stays undelivered.
    pub(crate) closing: CancellationToken,
}

/// The attempts that have something on this machine, by the task id of the wire: what the unary
/// server can stop and read.
#[derive(Debug, Default)]
pub(crate) struct LiveRuns(Mutex<HashMap<String, LiveRun>>);

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct LiveRun {
    /// Set once, when it shall stop.
    pub(crate) stop: watch::Sender<Option<StopRequest>>,
    /// Its log so far.
    pub(crate) spool: LogSpool,
    /// How long it has between SIGTERM and SIGKILL.
    pub(crate) grace_ms: u64,
}

impl LiveRun {
    /// Asks it to stop; false when somebody did before.
    pub(crate) fn request_stop(&self, request: StopRequest) -> bool {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(request);
            is_first
        })
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

/// Makes the channels of an attempt and shows it to the unary server.
pub(crate) fn prepare(
    context: &RunContext,
    attempt: AttemptId,
    task_id: String,
    session: Session,
    spec: Arc<TaskSpec>,
) -> Prepared {
    let (log, spool) = logs::open(context.dirs.spool_path(attempt), context.log_bytes_max);
    let (sender, progress) = mpsc::channel(PROGRESS_LEN_MAX);
    let (stop, stopped) = watch::channel(None);
    let run = LiveRun { stop, spool, grace_ms: spec.limits.grace_ms };
    context.live.insert(task_id.clone(), run.clone());
    let output_dir = context.dirs.output_path(attempt);
    let channels = RunChannels { progress: sender, log, stop: stopped, output_dir };
    Prepared { assignment: Assignment { attempt, session, spec }, task_id, channels, progress, run }
}

/// Starts an attempt of the session. What becomes known of it goes to `events`.
pub(crate) fn start(
    context: &Arc<RunContext>,
    attempt: AttemptId,
    session: Session,
    spec: Arc<TaskSpec>,
    events: mpsc::Sender<RunEvent>,
) -> RunHandle {
    let prepared = prepare(context, attempt, attempt.to_string(), session, spec);
    let handle = prepared.run.clone();
    let drop = CancellationToken::new();
    let life = live(Arc::clone(context), prepared, events, drop.clone());
    context.tracker.spawn(life);
    RunHandle { live: handle, drop }
}

async fn live(
    context: Arc<RunContext>,
    prepared: Prepared,
    events: mpsc::Sender<RunEvent>,
    drop: CancellationToken,
) {
    let Prepared { assignment, task_id, channels, progress, run } = prepared;
    let attempt = assignment.attempt;
    let spec = Arc::clone(&assignment.spec);
    let tell = |what| async {
        // A session that is gone needs no news: the process ends.
        let _ = events.send(RunEvent { attempt, what }).await;
    };
    let execute = async {
        let run = execute(&context.executor, assignment, channels);
        let (ended, ()) = tokio::join!(run, forward(attempt, progress, &events));
        tell(RunWhat::Ended(ended.outcome, ended.at)).await;
        ended.files
    };
    let push = push_log(context.uplink.clone(), &context.session, attempt, run.spool);
    let (files, pushed) = tokio::join!(execute, drop.run_until_cancelled(push));
    if let Some(Err(why)) = pushed {
        tracing::warn!("The log of {attempt} is not whole: {why}");
        tell(RunWhat::Note(clock::wall(), why)).await;
    }
    let folder = context.dirs.output_path(attempt);
    let to_upload = Upload { attempt, task_id: task_id.clone(), folder, files };
    let uploading = upload(context.uplink.clone(), &context.session, &spec, &to_upload);
    if let Some(result) = drop.run_until_cancelled(uploading).await {
        if let Err(why) = result {
            tracing::warn!("Files of {attempt} are lost: {why}");
            tell(RunWhat::Note(clock::wall(), why)).await;
        }
        tell(RunWhat::Delivered).await;
        drop.cancelled().await;
    }
    context.live.remove(&task_id);
    context.dirs.remove(attempt).await;
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

/// Makes the folder, which must not be there yet; the one above it may have been cleaned away.
async fn make_empty(dir: &Path) -> std::io::Result<()> {
    if let Some(parent) = dir.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    tokio::fs::create_dir(dir).await
}

/// Runs an attempt to its end.
pub(crate) async fn execute(
    executor: &Executor,
    assignment: Assignment,
    channels: RunChannels,
) -> Ended {
    if let Err(error) = make_empty(&channels.output_dir).await {
        let why = format!("cannot make {}: {error}", channels.output_dir.display());
        let outcome = Outcome::new(Cause::Infra, why);
        return Ended { outcome, at: clock::wall(), files: Vec::new() };
    }
    executor.run(assignment, channels).await
}
