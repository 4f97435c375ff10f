//! What comes in, and what is answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptReport, JOBS_PER_SECOND_MAX, JobId, JobShape, RequestId, Resources, Session,
    ShapeError, SpecError, TaskId, TaskSpec, WorkerId, WorkerKind,
};
use thiserror::Error;

/// Names whoever waits for an answer; the core only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A session stream of this master process, counted as they open. Whoever says hello over it has
/// answered the challenge with which it opened, so he lived after it had its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNo(pub u64);

/// A command and who waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Who waits; `None` when nobody does.
    pub from: Option<Token>,
    /// What is asked.
    pub command: Command,
}

/// Something to decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A client wants tasks to run.
    Submit(Submission),
    /// A client wants tasks not to run.
    Cancel(CancelTarget),
    /// A worker process says hello, first or again.
    Hello(WorkerHello),
    /// A worker tells what changed, and with each heartbeat everything that it holds.
    Report {
        /// Who.
        worker: WorkerId,
        /// Under which registration; `None` for a unary worker, which knows none.
        session: Option<Session>,
        /// The report's number within its stream, to be acknowledged.
        sequence: u64,
        /// What changed, in order.
        changes: Vec<AttemptReport>,
        /// Everything that it holds, when it says so.
        full: Option<FullReport>,
    },
    /// A worker process ends in good order; what it held is gone.
    Goodbye {
        /// Who.
        worker: WorkerId,
        /// Under which registration.
        session: Session,
    },
    /// A unary worker would not take an attempt.
    Declined {
        /// Who.
        worker: WorkerId,
        /// What it was given.
        attempt: AttemptId,
        /// Its words.
        message: String,
    },
    /// An agent proposes placements.
    Propose(Vec<Placement>),
    /// Time passed; a deadline may have.
    Tick,
}

/// What a worker says of itself with each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FullReport {
    /// Everything that it holds.
    pub held: Vec<AttemptReport>,
    /// Why it should get no new work, in words; `None` when it is well.
    pub degraded: Option<String>,
}

/// What a submit asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What each task runs.
    pub spec: Arc<TaskSpec>,
    /// One task or an array.
    pub shape: JobShape,
    /// The client's id of this submit.
    pub request: Option<RequestId>,
    /// The job that the store already has under that id, when it has ended and left the core.
    pub known: Option<(JobId, JobShape)>,
}

/// Which tasks to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelTarget {
    /// One task.
    Task(TaskId),
    /// Every task of a job.
    Job(JobId),
}

/// What a worker process says when it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerHello {
    /// Its stable identity.
    pub id: WorkerId,
    /// The registration that it already has; `None` when it wants a new one.
    pub session: Option<Session>,
    /// How it is spoken to.
    pub kind: WorkerKind,
    /// `host:port` of its unary server.
    pub address: String,
    /// What it offers.
    pub capacity: Resources,
    /// Declared volumes.
    pub volumes: BTreeSet<String>,
    /// Its version, or empty.
    pub version: String,
    /// Everything that it holds; `None` when it cannot say yet (a unary worker).
    pub held: Option<Vec<AttemptReport>>,
    /// Why it should get no new work, in words; `None` when it is well.
    pub degraded: Option<String>,
    /// The stream that it came over; `None` for a unary worker, which has none.
    pub stream: Option<StreamNo>,
}

/// A task and the worker that is to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The task.
    pub task: TaskId,
    /// The worker.
    pub worker: WorkerId,
}

/// A placement that the core would not take, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was proposed.
    pub placement: Placement,
    /// Why not, in words.
    pub why: String,
}

/// What a command came to. It leaves the master only after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The submit is stored.
    Submitted {
        /// The job.
        job: JobId,
        /// Its shape.
        shape: JobShape,
        /// Whether an earlier submit with the same request id had made it.
        existing: bool,
    },
    /// The cancel is stored.
    Cancelled {
        /// Tasks that ended by it at once.
        ended: u64,
        /// Tasks that a worker is asked to stop.
        stopping: u64,
    },
    /// The worker is registered under this session.
    Welcome(Session),
    /// The report is taken.
    Reported,
    /// What became of the proposals.
    Proposed {
        /// How many stand now.
        accepted: usize,
        /// The others.
        refused: Vec<Refused>,
    },
    /// Nothing was stored, and why.
    Rejected(Rejection),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// A field of the spec is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The array is wrong.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// No worker of this name ever registered.
    #[error("Worker '{0}' not found")]
    UnknownWorker(WorkerId),
    /// Neither a live task nor a live job has this id.
    #[error("no live task has this id")]
    NotLive,
    /// As many jobs wait as the master may hold.
    #[error("{0} jobs are waiting, which is as many as this master holds")]
    QueueFull(usize),
    /// More jobs are submitted than the master makes in a second.
    #[error(
        "more than {JOBS_PER_SECOND_MAX} jobs a second are submitted, which is as many as a master \
         takes; an array is one job"
    )]
    TooFast,
    /// As many workers are known as the master may hold.
    #[error("{0} workers are registered, which is as many as this master holds")]
    TooManyWorkers(usize),
    /// Another process registered under this worker's id since.
    #[error("another process has registered as worker '{0}' since; this one must end")]
    Superseded(WorkerId),
    /// The worker has said hello over a later stream since.
    #[error("worker '{0}' has said hello again since")]
    LateHello(WorkerId),
    /// The session was never given, or the worker is not known.
    #[error("worker '{0}' is not registered here: register first")]
    NotRegistered(WorkerId),
}
