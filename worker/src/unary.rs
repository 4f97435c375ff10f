//! Tasks that came by `AssignTask`, from a master that knows no sessions: run like any other, and
//! reported by `ReportTaskCompletion` with the tail of their log. They have no lease and are not in
//! the ledger. Their ids may be any text; inside, each gets an attempt of its own, far above the
//! numbers that a session's master gives.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cloudai_model::{AttemptId, AttemptNo, Cause, Outcome, Session, TaskId, TaskSpec, WorkerId};
use cloudai_proto::cluster::{Task, TaskResult};
use cloudai_proto::convert::{from_wire, to_wire};
use cloudai_proto::log_record::Decoder;

use crate::executor::docker::Begin;
use crate::executor::{Assignment, AttemptRecord, Progress};
use crate::logs::{self, LogSpool};
use crate::run::{self, Prepared, RunContext};
use crate::uplink::{Client, Tries};
use crate::upload::{Upload, upload};

/// Most tasks that are accepted and not yet reported.
const RUNNING_MAX: usize = 1_000;
/// How many task ids are remembered, so that none is run twice.
const REMEMBERED_MAX: usize = 16_384;
/// Longest task id in bytes.
const TASK_ID_LEN_MAX: usize = 255;
/// The first job number that is given inside.
const JOB_FIRST: u64 = 1 << 63;
/// Longest log in a result, in bytes: its tail. Files and the stream have no such bound.
const RESULT_LOG_LEN_MAX: usize = 1 << 20;
/// Bytes of a log that are read at once.
const READ_LEN: usize = 64 << 10;

/// What this worker runs for masters without sessions.
#[derive(Debug)]
pub(crate) struct Unary {
    context: Arc<RunContext>,
    worker: WorkerId,
    next_job: AtomicU64,
    accepted: Mutex<Accepted>,
}

#[derive(Debug, Default)]
struct Accepted {
    ids: HashSet<String>,
    order: VecDeque<String>,
    running: usize,
}

impl Unary {
    pub(crate) fn new(context: Arc<RunContext>, worker: WorkerId) -> Self {
        Self { context, worker, next_job: AtomicU64::new(JOB_FIRST), accepted: Mutex::default() }
    }

    pub(crate) fn context(&self) -> &RunContext {
        &self.context
    }

    /// Accepts a task and begins to run it. The same id again is accepted and not run again. A
    /// refusal says why.
    pub(crate) fn assign(self: &Arc<Self>, task: Task) -> Result<&'static str, String> {
        let task_id = task.task_id.clone();
        if task_id.is_empty() || task_id.len() > TASK_ID_LEN_MAX {
            return Err(format!("task_id: give 1 to {TASK_ID_LEN_MAX} bytes"));
        }
        let spec = from_wire::task(task).map_err(|error| error.to_string())?;
        if spec.target.as_ref().is_some_and(|target| *target != self.worker) {
            return Err(format!("target_worker_id: this is {}", self.worker));
        }
        if self.context.tracker.is_closed() {
            return Err("this worker is shutting down".to_owned());
        }
        if self.context.live.find(&task_id).is_some() || !self.remember(&task_id)? {
            return Ok("Task already accepted");
        }
        tracing::info!("Task received: {task_id} (image: {})", spec.image);
        // Before the answer: a cancel that follows it finds the task.
        let prepared = self.prepare(&task_id, Arc::new(spec));
        if self.context.tracker.is_closed() {
            // It came between the look above and the last stop of all.
            self.context.live.stop_all(Cause::WorkerLost);
        }
        let unary = Arc::clone(self);
        self.context.tracker.spawn(unary.live(task_id, prepared));
        Ok("Task accepted")
    }

    /// Whether the id is new.
    fn remember(&self, task_id: &str) -> Result<bool, String> {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.ids.contains(task_id) {
            return Ok(false);
        }
        if accepted.running >= RUNNING_MAX {
            return Err(format!("this worker already runs {RUNNING_MAX} tasks"));
        }
        if accepted.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = accepted.order.pop_front()
        {
            accepted.ids.remove(&oldest);
        }
        accepted.ids.insert(task_id.to_owned());
        accepted.order.push_back(task_id.to_owned());
        accepted.running += 1;
        Ok(true)
    }

    fn prepare(&self, task_id: &str, spec: Arc<TaskSpec>) -> Prepared {
        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
        let attempt = AttemptId { task: TaskId::single(job), no: AttemptNo::FIRST };
        let assignment = Assignment { attempt, session: Session::default(), spec };
        let path = self.context.dirs.spool_path(attempt);
        let log = logs::open(path, self.context.log_bytes_max);
        // Its master knows no sessions, and would not know it again after a restart.
        run::prepare(&self.context, assignment, task_id.to_owned(), log, AttemptRecord::unkept())
    }

    async fn live(self: Arc<Self>, task_id: String, prepared: Prepared) {
        let Prepared { assignment, channels, mut progress, run, .. } = prepared;
        let (attempt, spec) = (assignment.attempt, Arc::clone(&assignment.spec));
        let say = async {
            while let Some(progress) = progress.recv().await {
                if let Progress::Note(text) = progress {
                    tracing::debug!("[{task_id}] {text}");
                }
            }
        };
        let execute = self.context.executor.run(assignment, channels, Begin::New);
        let (ended, ()) = tokio::join!(execute, say);
        let outcome = &ended.outcome;
        let status = to_wire::status_word(outcome.cause);
        tracing::info!("Task completed: {task_id} [Status: {status}, {}]", outcome.cause);
        let folder = self.context.dirs.output_path(attempt);
        let to_upload = Upload { attempt, task_id: task_id.clone(), folder, files: ended.files };
        let deliver = self.deliver(&spec, &to_upload, outcome, &run.spool);
        self.context.closing.run_until_cancelled(deliver).await;
        self.context.live.remove(&task_id);
        self.context.dirs.remove(attempt).await;
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
    }

    /// Uploads the files and reports the end, until the master has it or will never take it.
    async fn deliver(&self, spec: &TaskSpec, files: &Upload, outcome: &Outcome, spool: &LogSpool) {
        let client = || self.context.uplink.clone();
        // A master without sessions gives none to name.
        let session = AtomicU64::new(0);
        if let Err(why) = upload(client(), &session, spec, files, Tries::new()).await {
            tracing::warn!("Files of {} are lost: {why}", files.task_id);
        }
        let names = files.files.iter().map(|name| name.to_string_lossy().into_owned());
        let result = TaskResult {
            task_id: files.task_id.clone(),
            worker_id: self.worker.to_string(),
            status: to_wire::status_word(outcome.cause).to_owned(),
            logs: result_log(spool, outcome).await,
            result_location: String::new(),
            output_files: names.collect(),
        };
        report(client(), result).await;
    }
}

async fn report(mut client: Client, result: TaskResult) {
    let mut tries = Tries::new();
    loop {
        match client.report_task_completion(result.clone()).await {
            Ok(_) => {
                tracing::info!("Task result reported: {}", result.task_id);
                return;
            }
            Err(status) if tries.again(&status).await => {}
            Err(status) => {
                let why = status.message();
                tracing::warn!("The master does not take the result of {}: {why}", result.task_id);
                return;
            }
        }
    }
}

/// The log as text, cut to its tail and marked; then what the engine said, if it said something.
async fn result_log(spool: &LogSpool, outcome: &Outcome) -> String {
    let mut text = match tail(spool).await {
        Ok(text) => text,
        Err(error) => format!("[the log cannot be read: {error}]\n"),
    };
    if !outcome.message.is_empty() {
        text.push_str(&outcome.message);
    }
    text
}

async fn tail(spool: &LogSpool) -> std::io::Result<String> {
    let (mut decoder, mut kept, mut is_cut) = (Decoder::default(), Vec::new(), false);
    let (mut reader, mut read) = (spool.reader(), 0);
    loop {
        let piece = reader.read(read, READ_LEN).await?;
        if piece.is_empty() {
            break;
        }
        read += piece.len() as u64;
        decoder.push(&piece);
        while let Ok(Some(record)) = decoder.next_record() {
            kept.extend_from_slice(&record.bytes);
        }
        if kept.len() > 2 * RESULT_LOG_LEN_MAX {
            kept.drain(..kept.len() - RESULT_LOG_LEN_MAX);
            is_cut = true;
        }
    }
    if kept.len() > RESULT_LOG_LEN_MAX {
        kept.drain(..kept.len() - RESULT_LOG_LEN_MAX);
        is_cut = true;
    }
    let mark = if is_cut { "[… the beginning is cut off]\n" } else { "" };
    Ok(format!("{mark}{}", String::from_utf8_lossy(&kept)))
}
