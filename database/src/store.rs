//! What a store is to the rest of CloudAI: a journal that can be loaded again, and readers beside
//! it. Backends implement these two traits; `conformance/` holds what they must keep.

use std::sync::Arc;

use cloudai_model::{
    AttemptNo, Hold, JobId, JobShape, Journal, LossCause, RequestId, Snapshot, TaskId, TaskRecord,
    TaskSpec, TaskStatus, Timestamp, WorkerId,
};

use crate::StoreError;

/// Most records in one page; a larger limit is lowered to it.
pub const PAGE_LEN_MAX: usize = 1_000;

/// The durable side of the core: one writer. Dropping it closes it cleanly; a store that was
/// not dropped (a killed process) loses nothing that was committed.
pub trait Store: Journal<Error = StoreError> + Send {
    /// Everything that the core works on, as the committed events made it.
    fn load(&mut self) -> Result<Snapshot, StoreError>;

    /// The job that was submitted under this request id, ended or not.
    fn find_request(
        &mut self,
        request: &RequestId,
    ) -> Result<Option<(JobId, JobShape)>, StoreError>;

    /// A new reader with a connection of its own. It sees every commit that returned before its
    /// call began, and never half of one.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;

    /// What this store is, for people: `SQLite /path/cloudai.db`.
    fn describe(&self) -> String;
}

/// Looks at the store from outside of the heart. Each call sees one moment.
pub trait Reader: Send {
    /// One task, at whatever point of its life; `None` when there is no such task.
    fn find_task(&mut self, task: TaskId) -> Result<Option<TaskRecord>, StoreError>;

    /// One job with its counts.
    fn find_job(&mut self, job: JobId) -> Result<Option<JobView>, StoreError>;

    /// Jobs, newest first.
    fn jobs(&mut self, query: &JobQuery) -> Result<JobPage, StoreError>;

    /// Tasks by job and position. A page does a bounded amount of work, so with a filter that
    /// matches little it can be short, even empty, and still have a `next`: only a page without
    /// one is the last.
    fn tasks(&mut self, query: &TaskQuery) -> Result<TaskPage, StoreError>;

    /// How many tasks there are in the whole cluster, by status.
    fn counts(&mut self) -> Result<StatusCounts, StoreError>;

    /// The attempts that a task lost, in order. Empty for a task that is not there.
    fn attempts(&mut self, task: TaskId) -> Result<Vec<LostAttempt>, StoreError>;
}

/// Tasks by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusCounts {
    /// Waiting for a worker, tried before or not.
    pub queued: u64,
    /// Placed, not started.
    pub assigned: u64,
    /// Started.
    pub running: u64,
    /// Ended with exit code 0.
    pub succeeded: u64,
    /// Ended in any other way that nobody asked for.
    pub failed: u64,
    /// Ended by a cancel.
    pub cancelled: u64,
}

impl StatusCounts {
    /// How many tasks have this status.
    pub const fn of(self, status: TaskStatus) -> u64 {
        match status {
            TaskStatus::Queued => self.queued,
            TaskStatus::Assigned => self.assigned,
            TaskStatus::Running => self.running,
            TaskStatus::Succeeded => self.succeeded,
            TaskStatus::Failed => self.failed,
            TaskStatus::Cancelled => self.cancelled,
        }
    }

    /// All tasks.
    pub const fn total(self) -> u64 {
        self.queued + self.assigned + self.running + self.ended()
    }

    /// Tasks that ended.
    pub const fn ended(self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }

    fn of_mut(&mut self, status: TaskStatus) -> &mut u64 {
        match status {
            TaskStatus::Queued => &mut self.queued,
            TaskStatus::Assigned => &mut self.assigned,
            TaskStatus::Running => &mut self.running,
            TaskStatus::Succeeded => &mut self.succeeded,
            TaskStatus::Failed => &mut self.failed,
            TaskStatus::Cancelled => &mut self.cancelled,
        }
    }

    /// Moves `count` tasks from one status to another; `None` when there are not so many.
    pub(crate) fn shift(&mut self, from: TaskStatus, to: TaskStatus, count: u64) -> Option<()> {
        let rest = self.of(from).checked_sub(count)?;
        *self.of_mut(from) = rest;
        *self.of_mut(to) = self.of(to).checked_add(count)?;
        Some(())
    }
}

/// A job as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What its tasks run.
    pub spec: Arc<TaskSpec>,
    /// One task or an array.
    pub shape: JobShape,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Its tasks by status.
    pub counts: StatusCounts,
}

/// Which jobs.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Only jobs with a task that has not ended.
    pub open_only: bool,
    /// Only jobs whose name contains this text.
    pub name: Option<String>,
    /// Only jobs of this user.
    pub user: Option<String>,
    /// Only jobs older than this one: the `next` of the page before.
    pub after: Option<JobId>,
    /// Most jobs in the page: 1 to [`PAGE_LEN_MAX`].
    pub limit: usize,
}

/// Jobs, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobView>,
    /// The `after` of the next page; `None` on the last.
    pub next: Option<JobId>,
}

/// A place between two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskCursor {
    /// The job of the last task that was looked at.
    pub job: JobId,
    /// Its position in the job.
    pub position: u32,
}

/// Which tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskQuery {
    /// Only tasks of this job.
    pub job: Option<JobId>,
    /// Only tasks with one of these statuses; empty for all.
    pub statuses: Vec<TaskStatus>,
    /// Only tasks that this worker holds or that ended on it.
    pub worker: Option<WorkerId>,
    /// Only tasks whose name contains this text.
    pub name: Option<String>,
    /// Only tasks of this user.
    pub user: Option<String>,
    /// From the highest job and position down, instead of up.
    pub newest_first: bool,
    /// Only tasks after this place, in the order asked: the `next` of the page before.
    pub after: Option<TaskCursor>,
    /// Most tasks in the page: 1 to [`PAGE_LEN_MAX`].
    pub limit: usize,
}

/// Tasks, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskPage {
    /// The tasks in the order asked.
    pub records: Vec<TaskRecord>,
    /// The `after` of the next page; `None` on the last.
    pub next: Option<TaskCursor>,
}

/// An attempt that went away without an outcome of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostAttempt {
    /// Which try.
    pub no: AttemptNo,
    /// Why it is gone.
    pub cause: LossCause,
    /// What the worker or the engine said, or empty.
    pub message: String,
    /// Who held it.
    pub hold: Hold,
    /// When its container started; `None` when it never did.
    pub started_at: Option<Timestamp>,
    /// When the loss was stored.
    pub lost_at: Timestamp,
}
