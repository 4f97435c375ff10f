//! The words of CloudAI as types: ids, resources, task specs, states, events and snapshots.
//!
//! This crate does no IO, reads no clock and draws no chance; everything here is plain data with
//! the checks that make it valid. It must never learn about the wire, the store or HTTP: those
//! convert at their own border. Read next: `event.rs` (what can become true) and then
//! `crates/master-core` (who decides that it does).

mod event;
mod id;
mod job;
mod numbers;
mod outcome;
mod ranges;
mod report;
mod resources;
mod snapshot;
mod spec;
mod time;
mod worker;

pub use event::{Event, Journal};
pub use id::{AttemptId, AttemptNo, IdError, JobId, RequestId, Session, TaskId, WorkerId};
pub use job::{ARRAY_INDEX_MAX, JobShape, ShapeError};
pub use numbers::{ATTEMPTS_PER_SECOND_MAX, JOBS_PER_SECOND_MAX, Numbers};
pub use outcome::{Budget, Cause, LossCause, Outcome, Spent};
pub use ranges::Ranges;
pub use report::{AttemptReport, ReportWhat, StopReason, Usage};
pub use resources::{Lack, Resource, Resources};
pub use snapshot::{
    AttemptEnd, Ended, EndedCounts, Hold, JobRecord, LiveState, LiveTask, Queued, Snapshot,
    TaskRecord, TaskState, TaskStatus,
};
pub use spec::{
    Invocation, Limits, Mount, Network, Origin, PullPolicy, RetryPolicy, SpecError, TaskSpec,
    TaskType, limits,
};
pub use time::{Monotonic, NAP_MS_MAX, Now, Timestamp};
pub use worker::{WorkerKind, WorkerRecord};
