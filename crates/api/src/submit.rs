//! A submit: what its client says of the tasks, and what it gets back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of `POST /jobs`. Only the image is needed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The client's name for this submit, 1 to 128 printable ASCII characters: the same id again
    /// gives the same job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The image reference.
    pub image: String,
    /// The argument vector, given to the image's entry point. Not together with `shell`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Run by `/bin/sh -c`. Not together with `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Cores; 1 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory in bytes; 512 MiB when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Storage in bytes; 1 GiB when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// GPUs; none when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<f64>,
    /// Most processes in the container; 4096 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// How long an attempt may run, in milliseconds; for ever when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Time between SIGTERM and SIGKILL, in milliseconds; 10 s when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// How long an attempt goes on without word from the master, in milliseconds; 30 s when not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How often a task that failed by itself is tried again; never when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How often it is tried again when its worker was lost while it ran, 0 to 1000; 5 times when
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes_max: Option<u32>,
    /// The container's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Volumes that the worker's administrator declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// When the image is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullPolicy>,
    /// The only worker that may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// A name for people; need not be unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who submits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The kind of work; inferred when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<TaskType>,
    /// k of "deadline = submitted + k × expected run time", 1.5 to 2.5; 2.0 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sla_multiplier: Option<f64>,
    /// Many tasks with an index each; one task when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<ArrayRange>,
}

/// The tasks `first..=last` of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ArrayRange {
    /// The lowest index.
    pub first: u32,
    /// The highest index.
    pub last: u32,
    /// Most tasks at once; no bound when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

/// A declared volume and where the task sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The name that the worker's administrator declared; never a path.
    pub volume: String,
    /// An absolute path in the container.
    pub target: String,
    /// Whether the task may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// What network a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The engine's default.
    #[default]
    Default,
    /// Loopback only.
    None,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When the worker does not have it.
    #[default]
    Missing,
    /// Before every attempt.
    Always,
    /// Not at all.
    Never,
}

/// The kind of work, as its submitter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TaskType {
    /// Little processor time.
    CpuLight,
    /// Much processor time.
    CpuHeavy,
    /// Much memory.
    MemoryHeavy,
    /// Inference on a GPU.
    GpuInference,
    /// Training on a GPU.
    GpuTraining,
    /// Some of each.
    Mixed,
}

/// What a submit created, or had created before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubmitResponse {
    /// The job: a number as text.
    pub job: String,
    /// How many tasks it has.
    pub tasks: u64,
    /// Its first task.
    pub first_task: String,
    /// Whether an earlier submit with the same request id made it.
    pub existing: bool,
}

/// Amounts of the four things that are placed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Amounts {
    /// Cores.
    pub cpus: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Storage in bytes.
    pub storage_bytes: u64,
    /// GPUs.
    pub gpus: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_enough_and_defaults_are_not_written() {
        let request: SubmitRequest = serde_json::from_str(r#"{"image":"busybox"}"#).unwrap();
        assert_eq!(request, SubmitRequest { image: "busybox".into(), ..Default::default() });
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"image":"busybox"}"#);
    }

    #[test]
    fn a_misspelt_field_is_refused_and_never_ignored() {
        for text in [
            r#"{"image":"busybox","cpu":2}"#,
            r#"{"image":"busybox","array":{"first":1,"last":2,"step":1}}"#,
            r#"{"image":"busybox","volumes":[{"volume":"v","target":"/v","ro":true}]}"#,
        ] {
            let error = serde_json::from_str::<SubmitRequest>(text).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
