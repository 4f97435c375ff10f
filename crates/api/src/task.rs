//! Tasks: one in a list, one with everything that is known of it, and why one does not run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Amounts, Network, PullPolicy, TaskType, Volume};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Waiting for a worker.
    Queued,
    /// Placed on a worker, not started.
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

    /// Its name in JSON and at the command line.
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

    /// Whether it is final.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an attempt or a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The process ended by itself; `exit_code` says how.
    Exit,
    /// It used more memory than it asked for.
    Oom,
    /// It ran longer than its time-out.
    Timeout,
    /// Its image could not be had.
    Image,
    /// Its worker was lost.
    WorkerLost,
    /// The worker's engine or disk failed.
    Infra,
    /// A user cancelled it.
    Cancelled,
}

impl Cause {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::Image => "image",
            Self::WorkerLost => "worker_lost",
            Self::Infra => "infra",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An end, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutcomeView {
    /// Why it ended.
    pub cause: Cause,
    /// The process's exit code; only with the cause `exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the engine or the registry said, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How many tasks stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskCounts {
    /// Waiting.
    pub queued: u64,
    /// Placed, not started.
    pub assigned: u64,
    /// Started.
    pub running: u64,
    /// Ended with exit code 0.
    pub succeeded: u64,
    /// Ended in another way.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl TaskCounts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.queued + self.assigned + self.running + self.ended()
    }

    /// Those that have ended.
    pub const fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// The query of `GET /tasks`. The newest task comes first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct TaskQuery {
    /// Only tasks that stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Only tasks of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Only tasks that this worker holds or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Only tasks of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only tasks of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Most tasks in the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The query of `GET /tasks/{id}` and `GET /jobs/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// Answer when it has ended, or after so many milliseconds with what there is; at once when
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskPage {
    /// The tasks, newest first.
    pub tasks: Vec<TaskSummary>,
    /// Where the next page begins; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskSummary {
    /// Its id.
    pub task: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// The image.
    pub image: String,
    /// Its name, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who submitted it, when that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The worker that holds it, or held it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The number of the current or last attempt; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeView>,
    /// When its job was stored.
    pub submitted_at_ms: u64,
    /// When the current or last attempt's container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended: the container's end, or the cancel of a task that waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
}

/// A task with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskDetail {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// What it runs.
    pub spec: SpecView,
    /// Whether a cancel was accepted for it that has not ended it yet.
    #[serde(default)]
    pub cancel_requested: bool,
    /// How often its worker was lost while it ran; `crashes_max` of its spec bounds it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// How often it was lost to an engine, a disk, or a worker before it started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub infra_losses: u32,
    /// Its attempts, the first one first.
    #[serde(default)]
    pub attempts: Vec<AttemptView>,
    /// What happened on the way, the oldest first: pulls, losses, retries.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// The files of /output that were uploaded.
    #[serde(default)]
    pub files: Vec<FileView>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a task runs, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpecView {
    /// The argument vector, when one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The shell's text, when one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What is placed.
    pub needs: Amounts,
    /// Most processes.
    pub pids: u32,
    /// The time-out in milliseconds, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// The lease in milliseconds.
    pub lease_ms: u64,
    /// How often it is tried again after failing by itself.
    pub retries: u32,
    /// How often it is tried again when its worker was lost while it ran.
    pub crashes_max: u32,
    /// Its network.
    pub network: Network,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// When its image is fetched.
    pub pull: PullPolicy,
    /// The only worker that may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The kind of work, when it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<TaskType>,
    /// k of "deadline = submitted + k × expected run time".
    pub sla_multiplier: f64,
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AttemptState {
    /// Placed, not started.
    Assigned,
    /// Started.
    Running,
    /// Gone without being the task's end; the task was tried again.
    Lost,
    /// The task's end.
    Ended,
}

impl AttemptState {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Lost => "lost",
            Self::Ended => "ended",
        }
    }
}

/// One try of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptView {
    /// Its number, from 1.
    pub attempt: u32,
    /// The worker.
    pub worker: String,
    /// Where it stands.
    pub state: AttemptState,
    /// When it was placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_at_ms: Option<u64>,
    /// When its container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended or was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// How it ended or why it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeView>,
}

/// Something that a person wants to know of a task's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Note {
    /// When.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// Why a task is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The task.
    pub task: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// One sentence that answers the question.
    pub summary: String,
    /// For a waiting task: each worker with the first thing that speaks against it.
    #[serde(default)]
    pub workers: Vec<WorkerReason>,
    /// For a waiting task: how many shapes of tasks are looked at before its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// What speaks against a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerReason {
    /// The worker.
    pub worker: String,
    /// For example `wants 4 cores, 1.5 free`.
    pub reason: String,
}

/// The files of a task's /output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileList {
    /// The files by path.
    pub files: Vec<FileView>,
}

/// An output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileView {
    /// Its path below /output, with `/` between its parts.
    pub path: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_json_agree() {
        for status in TaskStatus::ALL {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
            assert_eq!(TaskStatus::find(status.name()), Some(status));
        }
        for cause in [Cause::Exit, Cause::Oom, Cause::WorkerLost, Cause::Infra, Cause::Cancelled] {
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{cause}\""));
        }
    }

    #[test]
    fn a_detail_is_a_summary_with_more() {
        let text = r#"{"task":"task-1","status":"queued","image":"busybox","submitted_at_ms":1,
            "spec":{"needs":{"cpus":1.5,"memory_bytes":1,"storage_bytes":1,"gpus":0},"pids":1,
            "grace_ms":1,"lease_ms":1,"retries":0,"crashes_max":5,"network":"default","pull":"missing",
            "sla_multiplier":2.0},"a_field_of_tomorrow":1}"#;
        let detail: TaskDetail = serde_json::from_str(text).unwrap();
        assert_eq!(detail.summary.task, "task-1");
        let again = serde_json::to_value(&detail).unwrap();
        assert_eq!(again["status"], "queued");
    }
}
