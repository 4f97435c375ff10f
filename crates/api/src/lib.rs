//! The HTTP API as types: what a client sends, what a master answers, and every error code.
//!
//! Plain data with serde; no logic beyond names and the table of error codes. It must never learn
//! about the model, the wire or the store: the master converts at its own border. Ids are texts as
//! people see them (`task-42.7`, job `42`), times are Unix milliseconds (`…_at_ms`), amounts of
//! memory and storage are bytes, cores and GPUs are numbers that may have a fraction. A request
//! with a field that is not listed here is refused; a client ignores fields that it does not know.
//!
//! | method and path (below [`BASE`]) | query | body | answer |
//! |---|---|---|---|
//! | GET `/health` | | | [`Health`] |
//! | GET `/status` | | | [`ClusterStatus`] |
//! | POST `/jobs` | | [`SubmitRequest`] | 201 [`SubmitResponse`] (200 when it existed) |
//! | GET `/jobs` | [`JobQuery`] | | [`JobPage`] |
//! | GET `/jobs/{id}` | [`WaitQuery`] | | [`JobView`] |
//! | POST `/jobs/{id}/cancel` | | | [`CancelResponse`] |
//! | GET `/tasks` | [`TaskQuery`] | | [`TaskPage`] |
//! | GET `/tasks/{id}` | [`WaitQuery`] | | [`TaskDetail`] |
//! | GET `/tasks/{id}/explain` | | | [`Explanation`] |
//! | GET `/tasks/{id}/logs` | [`LogQuery`] | | lines of JSON, each a [`LogItem`] |
//! | POST `/tasks/{id}/cancel` | | | [`CancelResponse`] |
//! | GET `/tasks/{id}/files` | | | [`FileList`] |
//! | GET `/tasks/{id}/files/{path}` | | | the file's bytes |
//! | GET `/workers` | | | [`WorkerList`] |
//! | GET `/workers/{id}` | | | [`WorkerView`] with its running tasks |
//! | GET `/queue` | | | [`QueueView`] |
//! | GET `/events` | | | server-sent events, each a [`ClusterEvent`] |
//!
//! Beside it stand `/healthz` and `/readyz` for probes, which answer 200 or 503 with a line of
//! text: whether the process lives, and whether it takes work and why not. An error is always an
//! [`ErrorBody`]. Read next: `submit.rs`, `task.rs`, `error.rs`.

mod cluster;
mod error;
mod job;
mod log;
mod submit;
mod task;
mod worker;

pub use cluster::{
    AgentView, ClusterEvent, ClusterStatus, Health, QueueView, ShapeView, WorkerCounts,
};
pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use job::{CancelResponse, JobPage, JobQuery, JobView};
pub use log::{LogEnd, LogItem, LogLine, LogQuery, LogStream};
pub use submit::{
    Amounts, ArrayRange, Network, PullPolicy, SubmitRequest, SubmitResponse, TaskType, Volume,
};
pub use task::{
    AttemptState, AttemptView, Cause, Explanation, FileList, FileView, Note, OutcomeView, SpecView,
    TaskCounts, TaskDetail, TaskPage, TaskQuery, TaskStatus, TaskSummary, WaitQuery, WorkerReason,
};
pub use worker::{RunningTask, UsagePercent, WorkerKind, WorkerList, WorkerStatus, WorkerView};

/// Where every path of this version begins.
pub const BASE: &str = "/api/v1";

/// Longest time that one request waits for an end (`wait_ms`), in milliseconds; more is cut to it.
pub const WAIT_MS_MAX: u64 = 60_000;

/// Entries of a page when the query names no limit.
pub const PAGE_LIMIT_DEFAULT: u32 = 100;

/// Most entries of a page; more is refused.
pub const PAGE_LIMIT_MAX: u32 = 1_000;

/// Largest body of a request, in bytes; more is refused with `too_large`.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
