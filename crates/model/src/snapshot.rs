//! States that carry exactly the data that exists in them, and the whole of what is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{
    AttemptId, AttemptNo, Budget, JobId, JobShape, LossCause, Numbers, Outcome, Ranges, RequestId,
    Session, Spent, TaskId, TaskSpec, Timestamp, WorkerId, WorkerRecord,
};

/// Which worker holds an attempt, under which registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The worker.
    pub worker: WorkerId,
    /// Its registration when the attempt was placed, or when it took the attempt up again.
    pub session: Session,
    /// When the placement was stored.
    pub placed_at: Timestamp,
}

/// A task that was tried and waits to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Why the last attempt went away.
    pub lost: LossCause,
    /// When that was stored.
    pub lost_at: Timestamp,
}

/// Where a live task stands. A task that was never placed has no entry: it is part of its job's
/// fresh range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveState {
    /// Waiting for another try; `LiveTask::attempt` is the number that the next one gets.
    Queued(Queued),
    /// Placed, not yet reported as started.
    Assigned(Hold),
    /// Reported as started.
    Running {
        /// Where.
        hold: Hold,
        /// When the worker said that it began.
        started_at: Timestamp,
    },
}

/// A task that was placed at least once and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    /// The current attempt, or the next one while queued.
    pub attempt: AttemptNo,
    /// Where it stands.
    pub state: LiveState,
    /// Whether a cancel was accepted for it.
    pub cancel_requested: bool,
    /// What it has used of its budgets.
    pub spent: Spent,
}

impl LiveTask {
    /// A task whose first attempt was placed.
    pub fn placed(attempt: AttemptNo, hold: Hold) -> Self {
        Self {
            attempt,
            state: LiveState::Assigned(hold),
            cancel_requested: false,
            spent: Spent::default(),
        }
    }

    /// What it would count against to lose the current attempt now.
    pub const fn budget_of(&self, cause: LossCause) -> Option<Budget> {
        cause.budget(matches!(self.state, LiveState::Running { .. }))
    }

    /// The current attempt is gone; the next one waits.
    pub fn lose(&mut self, cause: LossCause, at: Timestamp) {
        self.spent.count(self.budget_of(cause));
        self.state = LiveState::Queued(Queued { lost: cause, lost_at: at });
        self.attempt = self.attempt.next();
    }

    /// The worker that holds the current attempt.
    pub const fn find_hold(&self) -> Option<&Hold> {
        match &self.state {
            LiveState::Queued(_) => None,
            LiveState::Assigned(hold) | LiveState::Running { hold, .. } => Some(hold),
        }
    }
}

/// How many tasks of a job have ended, by how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndedCounts {
    /// With exit code 0.
    pub succeeded: u64,
    /// In any other way that nobody asked for.
    pub failed: u64,
    /// By a cancel.
    pub cancelled: u64,
}

impl EndedCounts {
    /// All ended tasks.
    pub const fn total(self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// A job with at least one task that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What its tasks run; shared between equal jobs.
    pub spec: Arc<TaskSpec>,
    /// One task or an array.
    pub shape: JobShape,
    /// The client's id of the submit, when it gave one.
    pub request: Option<RequestId>,
    /// When the submit was stored.
    pub submitted_at: Timestamp,
    /// Positions that were never placed and not cancelled.
    pub fresh: Ranges,
    /// Tasks that were placed and have not ended, by position.
    pub live: BTreeMap<u32, LiveTask>,
    /// Tasks that ended.
    pub ended: EndedCounts,
}

/// Everything durable that the core works on: what a store loads and a core restores. Ended jobs
/// are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The last numbers that were given.
    pub numbers: Numbers,
    /// Every worker that ever registered.
    pub workers: BTreeMap<WorkerId, WorkerRecord>,
    /// Every job that has not ended.
    pub jobs: BTreeMap<JobId, JobRecord>,
}

/// A task's end, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When the end was stored.
    pub ended_at: Timestamp,
    /// The attempt that produced it, with its worker; `None` when no attempt was ever made or the
    /// task was cancelled while queued.
    pub by: Option<AttemptEnd>,
}

/// The attempt that a task ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Which try.
    pub attempt: AttemptNo,
    /// Where.
    pub hold: Hold,
    /// When its container started; `None` when it never did.
    pub started_at: Option<Timestamp>,
    /// When its container ended, by the worker's clock.
    pub finished_at: Timestamp,
}

/// The name of a task's state, for filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskStatus {
    /// Waiting for a worker.
    Queued,
    /// Placed, not started.
    Assigned,
    /// Started.
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended in any other way that nobody asked for.
    Failed,
    /// Ended by a cancel.
    Cancelled,
}

impl TaskStatus {
    /// Every status in the order of a task's life.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name in the API, the store and at the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// The status of a task that ended with this outcome.
    pub const fn of_outcome(outcome: &Outcome) -> Self {
        match outcome.cause {
            crate::Cause::Exit(0) => Self::Succeeded,
            crate::Cause::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// Where a task stands, ended ones included: what a reader of the store gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Never placed.
    Fresh,
    /// Placed at least once, not ended.
    Live(LiveTask),
    /// Ended.
    Ended(Ended),
}

impl TaskState {
    /// The name of this state.
    pub const fn status(&self) -> TaskStatus {
        match self {
            Self::Fresh => TaskStatus::Queued,
            Self::Live(live) => match live.state {
                LiveState::Queued(_) => TaskStatus::Queued,
                LiveState::Assigned(_) => TaskStatus::Assigned,
                LiveState::Running { .. } => TaskStatus::Running,
            },
            Self::Ended(ended) => TaskStatus::of_outcome(&ended.outcome),
        }
    }
}

/// One task as a reader of the store sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// What it runs.
    pub spec: Arc<TaskSpec>,
    /// When its job was submitted.
    pub submitted_at: Timestamp,
    /// Where it stands.
    pub state: TaskState,
}

impl TaskRecord {
    /// The name of its state.
    pub const fn status(&self) -> TaskStatus {
        self.state.status()
    }

    /// The current or last attempt, when there was one.
    pub fn find_attempt(&self) -> Option<AttemptId> {
        let no = match &self.state {
            TaskState::Fresh => return None,
            TaskState::Live(LiveTask { attempt, state: LiveState::Queued(_), .. }) => {
                AttemptNo(attempt.0.checked_sub(1)?)
            }
            TaskState::Live(live) => live.attempt,
            TaskState::Ended(ended) => ended.by.as_ref()?.attempt,
        };
        (no.0 > 0).then_some(AttemptId { task: self.id, no })
    }
}
