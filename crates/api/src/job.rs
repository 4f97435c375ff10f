//! Jobs: what one submit created, counted.

use serde::{Deserialize, Serialize};

use crate::{ArrayRange, TaskCounts};

/// The query of `GET /jobs`. The newest job comes first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Most jobs in the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobView {
    /// Its id: a number as text.
    pub job: String,
    /// The image that its tasks run.
    pub image: String,
    /// Its name, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who submitted it, when that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its range of indices; absent for a job of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayRange>,
    /// Its first task.
    pub first_task: String,
    /// Its tasks, counted by status.
    pub counts: TaskCounts,
    /// Whether every task has ended.
    pub ended: bool,
    /// When it was stored.
    pub submitted_at_ms: u64,
}

/// What a cancel did. A task that a worker holds ends when its container is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelResponse {
    /// The task or job that was named, as people see it.
    pub id: String,
    /// Tasks that were waiting and are cancelled now.
    pub cancelled: u64,
    /// Tasks whose worker was told to stop them.
    pub stopping: u64,
    /// Tasks that had ended already and stay as they are.
    pub already_ended: u64,
}
