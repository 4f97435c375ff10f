//! Workers: what they offer, what is taken, what they do.

use serde::{Deserialize, Serialize};

use crate::{Amounts, TaskStatus};

/// The answer of `GET /workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerList {
    /// Every worker that ever registered, by id.
    pub workers: Vec<WorkerView>,
}

/// Whether a worker takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Heard within 15 s.
    Active,
    /// Not heard.
    Inactive,
    /// Heard, but something that it needs fails: `reason` says what. It keeps what it runs.
    Degraded,
    /// Heard, but what it was given failed too often in a row: `reason` says what and for how long.
    PutAside,
}

/// How a worker is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// By the stream that it opened.
    Session,
    /// By the unary calls of the wire contract.
    Unary,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerView {
    /// Its id.
    pub id: String,
    /// Whether it takes new work.
    pub status: WorkerStatus,
    /// Why it takes none, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `host:port`.
    pub address: String,
    /// How it is spoken to.
    pub kind: WorkerKind,
    /// The version it said it runs; empty when it said none.
    #[serde(default)]
    pub version: String,
    /// Its present registration.
    pub session: u64,
    /// When it registered last.
    pub registered_at_ms: u64,
    /// How long ago it was heard last, in milliseconds; absent when not since the master started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard_ms_ago: Option<u64>,
    /// What it offers.
    pub capacity: Amounts,
    /// What live attempts take.
    pub allocated: Amounts,
    /// What is left.
    pub free: Amounts,
    /// What its machine is really using; absent before its first heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsagePercent>,
    /// How many attempts it holds.
    pub running: u64,
    /// The attempts that it holds; only in the answer for one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<RunningTask>>,
    /// Names of the volumes that its administrator declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

/// What a machine uses, in percent of its whole (0 to 100).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsagePercent {
    /// Processors.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// Storage.
    pub storage: f64,
    /// GPUs.
    pub gpu: f64,
}

/// An attempt that a worker holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunningTask {
    /// The task.
    pub task: String,
    /// Which try.
    pub attempt: u32,
    /// `assigned` or `running`.
    pub status: TaskStatus,
    /// The image.
    pub image: String,
    /// What it takes.
    pub allocated: Amounts,
    /// When its container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
}
