//! What became true. Events are the only thing that is stored, and the only thing that changes
//! durable state: a live master and a restarting one apply the same ones.

use std::sync::Arc;

use crate::{
    AttemptId, Hold, JobId, JobShape, LossCause, Outcome, RequestId, Session, TaskId, TaskSpec,
    Timestamp, WorkerRecord,
};

/// A durable fact, in the past tense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker registered, for the first time or again, under a new session.
    WorkerRegistered {
        /// The worker as it is from now on.
        worker: WorkerRecord,
    },
    /// A submit was accepted.
    JobSubmitted {
        /// The new job.
        job: JobId,
        /// What its tasks run.
        spec: Arc<TaskSpec>,
        /// One task or an array.
        shape: JobShape,
        /// The client's id of the submit.
        request: Option<RequestId>,
        /// When.
        at: Timestamp,
    },
    /// An attempt was given to a worker.
    AttemptPlaced {
        /// The attempt; its task was queued.
        attempt: AttemptId,
        /// Where, under which session, and when.
        hold: Hold,
    },
    /// The worker said that the attempt's container started.
    AttemptStarted {
        /// The current attempt of its task.
        attempt: AttemptId,
        /// When, by the worker's clock.
        at: Timestamp,
    },
    /// A restarted worker took a live attempt up again under its new session.
    AttemptAdopted {
        /// The current attempt of its task.
        attempt: AttemptId,
        /// The worker's new session.
        session: Session,
    },
    /// The current attempt is gone; its task is queued again with the next attempt number.
    AttemptLost {
        /// The attempt that is gone.
        attempt: AttemptId,
        /// Why.
        cause: LossCause,
        /// What the worker or the engine said, or empty.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// A cancel was accepted for a task that a worker holds; it ends when the worker says so.
    CancelRequested {
        /// The task.
        task: TaskId,
        /// When.
        at: Timestamp,
    },
    /// Tasks that were never placed were cancelled: the fresh ones of `first..=last`.
    FreshCancelled {
        /// Their job.
        job: JobId,
        /// The lowest position.
        first: u32,
        /// The highest position. Positions between that are not fresh are left alone.
        last: u32,
        /// When.
        at: Timestamp,
    },
    /// A task that was placed at least once ended. This is final.
    TaskFinished {
        /// The task's last attempt. A task that was cancelled while it waited for another try
        /// carries the number of the try that never was.
        attempt: AttemptId,
        /// How.
        outcome: Outcome,
        /// When its container ended, by the worker's clock; `at` when there was none.
        finished_at: Timestamp,
        /// When the end was accepted.
        at: Timestamp,
    },
}

/// Where events become durable.
pub trait Journal {
    /// Why a commit failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Stores all events, in order, or none. When it returns `Ok`, they survive a power cut.
    fn commit(&mut self, events: &[Event]) -> Result<(), Self::Error>;
}
