//! What the shared logic reads from a backend: jobs, the tasks that have a row, and the spans that
//! were cancelled as one. A backend that can answer these and can write `turn::Changes` is
//! complete; what events mean (`turn.rs`) and how pages are made (`page.rs`) is written once.

use std::sync::Arc;

use cloudai_model::{
    EndedCounts, JobId, JobShape, LiveTask, Numbers, RequestId, TaskSpec, TaskState, TaskStatus,
    Timestamp, WorkerId, WorkerRecord,
};

use crate::{LostAttempt, StatusCounts, StoreError};

/// The backend's number of an interned spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpecNo(pub(crate) i64);

/// A direction through jobs and positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Up,
    Down,
}

/// Which jobs a walk stops at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Every one.
    All,
    /// Those with a task that has not ended.
    Open,
    /// Those with a task that has a row and has not ended.
    Live,
    /// Those with a task that failed or was cancelled.
    Unsuccessful,
}

/// Which rows of a job are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Every one.
    All,
    /// Those that have not ended.
    Live,
    /// Those that failed or were cancelled.
    Unsuccessful,
}

/// A job as a backend keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobRow {
    pub(crate) id: JobId,
    pub(crate) spec: SpecNo,
    pub(crate) shape: JobShape,
    pub(crate) submitted_at: Timestamp,
    /// No position below this one is fresh. At or above it, a position is fresh when it has no row
    /// and lies in no cancelled span.
    pub(crate) fresh_from: u32,
    /// How many positions are fresh.
    pub(crate) fresh: u64,
    pub(crate) counts: StatusCounts,
}

impl JobRow {
    /// A job of which nothing happened yet.
    pub(crate) fn new(id: JobId, shape: JobShape, submitted_at: Timestamp) -> Self {
        let fresh = shape.task_count();
        Self {
            id,
            // Given by the backend when it interns the spec.
            spec: SpecNo(0),
            shape,
            submitted_at,
            fresh_from: shape.span().0,
            fresh,
            counts: StatusCounts { queued: fresh, ..StatusCounts::default() },
        }
    }

    /// Whether every position from `fresh_from` on is fresh, so that neither rows nor spans have
    /// to be asked. It holds as long as positions are taken from the front.
    pub(crate) fn fresh_is_whole(&self) -> bool {
        let end = u64::from(self.shape.span().1) + 1;
        end - u64::from(self.fresh_from) == self.fresh
    }

    /// Whether a task has not ended.
    pub(crate) const fn is_open(&self) -> bool {
        self.counts.ended() < self.counts.total()
    }

    /// The ended ones as the core counts them.
    pub(crate) const fn ended(&self) -> EndedCounts {
        EndedCounts {
            succeeded: self.counts.succeeded,
            failed: self.counts.failed,
            cancelled: self.counts.cancelled,
        }
    }

    /// Notes that `count` fresh positions of `low..=high`, all that were fresh there, are not any
    /// more.
    pub(crate) fn take_fresh(&mut self, low: u32, high: u32, count: u64) -> Result<(), StoreError> {
        let rest = self.fresh.checked_sub(count);
        self.fresh = rest
            .ok_or_else(|| StoreError::corrupt(format!("{} has too few fresh tasks", self.id)))?;
        if self.fresh == 0 {
            self.fresh_from = self.shape.span().1 + 1;
        } else if low <= self.fresh_from {
            self.fresh_from = self.fresh_from.max(high + 1);
        }
        Ok(())
    }

    /// Moves tasks between two counts.
    pub(crate) fn shift(
        &mut self,
        from: TaskStatus,
        to: TaskStatus,
        count: u64,
    ) -> Result<(), StoreError> {
        self.counts.shift(from, to, count).ok_or_else(|| {
            StoreError::corrupt(format!("{} has fewer than {count} tasks {}", self.id, from.name()))
        })
    }
}

/// Positions that were cancelled by one event before they were ever placed. Positions inside that
/// have a row are not meant. Spans of one job never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CancelledSpan {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) at: Timestamp,
}

/// What counts for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cluster {
    pub(crate) numbers: Numbers,
    pub(crate) counts: StatusCounts,
}

/// The reading half of a backend, inside one transaction. Spans of positions are inclusive.
pub(crate) trait Rows {
    type Error: From<StoreError>;

    fn cluster(&mut self) -> Result<Cluster, Self::Error>;
    fn workers(&mut self) -> Result<Vec<WorkerRecord>, Self::Error>;
    fn has_worker(&mut self, worker: &WorkerId) -> Result<bool, Self::Error>;
    fn spec(&mut self, no: SpecNo) -> Result<Arc<TaskSpec>, Self::Error>;
    fn find_job(&mut self, job: JobId) -> Result<Option<JobRow>, Self::Error>;
    fn find_request(&mut self, request: &RequestId) -> Result<Option<JobRow>, Self::Error>;

    /// The nearest job behind `after` in the given order.
    fn next_job(
        &mut self,
        walk: Walk,
        after: Option<JobId>,
        order: Order,
    ) -> Result<Option<JobRow>, Self::Error>;

    /// Open jobs above `after`, in order.
    fn open_jobs(
        &mut self,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<(JobRow, Option<RequestId>)>, Self::Error>;

    /// Rows of tasks that have not ended, above `after`, in order.
    fn live_tasks(
        &mut self,
        after: Option<(JobId, u32)>,
        limit: usize,
    ) -> Result<Vec<(JobId, u32, LiveTask)>, Self::Error>;

    /// The row of one task.
    fn find_task(&mut self, job: JobId, position: u32) -> Result<Option<TaskState>, Self::Error>;

    /// The first `limit` rows of a span in the given order.
    fn tasks(
        &mut self,
        job: JobId,
        which: Which,
        span: (u32, u32),
        order: Order,
        limit: usize,
    ) -> Result<Vec<(u32, TaskState)>, Self::Error>;

    /// The positions of a span that have a row, in order.
    fn positions(&mut self, job: JobId, span: (u32, u32)) -> Result<Vec<u32>, Self::Error>;

    /// The cancelled spans of a job, in order.
    fn cancelled_spans(&mut self, job: JobId) -> Result<Vec<CancelledSpan>, Self::Error>;

    /// The lost attempts of a task, in order.
    fn attempts(&mut self, job: JobId, position: u32) -> Result<Vec<LostAttempt>, Self::Error>;
}
