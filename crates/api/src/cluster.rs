//! The whole: health, counts, the queue, and what happens now.

use serde::{Deserialize, Serialize};

use crate::{Amounts, TaskCounts};

/// The answer of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Whether it takes work: the heart beats, and the store has room.
    pub ready: bool,
    /// The master's version.
    pub version: String,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterStatus {
    /// Workers, counted.
    pub workers: WorkerCounts,
    /// Tasks, counted by status; ended ones are those that the store still has.
    pub tasks: TaskCounts,
    /// The master's version.
    pub version: String,
    /// The store, in words: `SQLite (/var/lib/cloudai/cloudai.db)`.
    pub store: String,
    /// How long the master has been up, in milliseconds.
    pub uptime_ms: u64,
    /// The built-in policy: `first_fit`, `round_robin` or `spread`.
    pub policy: String,
    /// The external scheduling agent, once one has called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentView>,
    /// Where workers and agents reach this master: `127.0.0.1:50051`.
    pub grpc_address: String,
    /// Reports of workers that were refused since this master started, because they were not of
    /// the current attempt and registration: a zombie's, or one that came twice.
    #[serde(default)]
    pub stale_reports: u64,
}

/// Workers, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerCounts {
    /// Every worker that ever registered.
    pub total: u64,
    /// Heard within 15 s, and well.
    pub active: u64,
    /// Not heard.
    pub inactive: u64,
    /// Heard, and not well by their own words.
    #[serde(default)]
    pub degraded: u64,
    /// Heard, and put aside for a while after failures in a row.
    #[serde(default)]
    pub put_aside: u64,
}

/// What an external agent did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentView {
    /// Whether it decides now: it answered within its deadline.
    pub active: bool,
    /// How long ago it called last, in milliseconds.
    pub last_heard_ms_ago: u64,
    /// Placements of it that were taken.
    pub accepted: u64,
    /// Placements of it that were refused.
    pub refused: u64,
}

/// The answer of `GET /queue`: waiting tasks by shape (equal needs and constraints), in the order
/// in which they are looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueView {
    /// How many tasks wait.
    pub waiting: u64,
    /// Their shapes.
    pub shapes: Vec<ShapeView>,
}

/// Waiting tasks that are all alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShapeView {
    /// How many.
    pub count: u64,
    /// The one that is next.
    pub first_task: String,
    /// What each needs.
    pub needs: Amounts,
    /// The only worker that may run them, when one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Why the next one waits, in a sentence.
    pub reason: String,
}

/// Something that happened, for people who watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterEvent {
    /// When.
    pub at_ms: u64,
    /// What kind: `job_submitted`, `attempt_placed`, `attempt_started`, `attempt_lost`,
    /// `task_finished`, `task_cancelled`, `worker_registered`, `worker_inactive`,
    /// `worker_active`, `worker_degraded`, `worker_put_aside`, or `gap` when the reader was too
    /// slow and missed some.
    pub kind: String,
    /// The task, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The worker, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// What happened, in words.
    pub text: String,
}
