//! A spec as it stands in the file: JSON with a fixed order of fields, so that equal specs have
//! equal texts. What is written here must be readable for ever: add fields with a default, and
//! never change the meaning of one.

use std::collections::BTreeMap;

use cloudai_model::{
    Invocation, Limits, Mount, Network, Origin, PullPolicy, Resources, RetryPolicy, TaskSpec,
    TaskType, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::StoreError;

#[derive(Serialize, Deserialize)]
struct SpecRow {
    image: String,
    invocation: InvocationRow,
    env: BTreeMap<String, String>,
    cpu_milli: u64,
    memory_bytes: u64,
    storage_bytes: u64,
    gpu_milli: u64,
    pids_max: u32,
    timeout_ms: Option<u64>,
    grace_ms: u64,
    network: NetworkRow,
    mounts: Vec<MountRow>,
    pull: PullRow,
    target: Option<String>,
    name: Option<String>,
    lease_ms: u64,
    retries_max: u32,
    crashes_max: u32,
    user: String,
    task_type: Option<String>,
    sla_milli: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InvocationRow {
    Image,
    Shell(String),
    Arguments(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NetworkRow {
    Default,
    None,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PullRow {
    Missing,
    Always,
    Never,
}

#[derive(Serialize, Deserialize)]
struct MountRow {
    volume: String,
    target: String,
    read_only: bool,
}

/// The text of a spec.
pub(super) fn encode(spec: &TaskSpec) -> Result<String, StoreError> {
    serde_json::to_string(&to_row(spec))
        .map_err(|error| StoreError::corrupt(format!("a spec has no JSON: {error}")))
}

/// The spec of a text.
pub(super) fn decode(json: &str) -> Result<TaskSpec, StoreError> {
    let error = |what: String| StoreError::corrupt(format!("a stored spec cannot be read: {what}"));
    let row: SpecRow = serde_json::from_str(json).map_err(|e| error(e.to_string()))?;
    from_row(row).map_err(error)
}

fn to_row(spec: &TaskSpec) -> SpecRow {
    SpecRow {
        image: spec.image.clone(),
        invocation: match &spec.invocation {
            Invocation::Image => InvocationRow::Image,
            Invocation::Shell(text) => InvocationRow::Shell(text.clone()),
            Invocation::Arguments(arguments) => InvocationRow::Arguments(arguments.clone()),
        },
        env: spec.env.clone(),
        cpu_milli: spec.needs.cpu_milli,
        memory_bytes: spec.needs.memory_bytes,
        storage_bytes: spec.needs.storage_bytes,
        gpu_milli: spec.needs.gpu_milli,
        pids_max: spec.limits.pids_max,
        timeout_ms: spec.limits.timeout_ms,
        grace_ms: spec.limits.grace_ms,
        network: match spec.network {
            Network::Default => NetworkRow::Default,
            Network::None => NetworkRow::None,
        },
        mounts: spec.mounts.iter().map(to_mount_row).collect(),
        pull: match spec.pull {
            PullPolicy::Missing => PullRow::Missing,
            PullPolicy::Always => PullRow::Always,
            PullPolicy::Never => PullRow::Never,
        },
        target: spec.target.as_ref().map(ToString::to_string),
        name: spec.name.clone(),
        lease_ms: spec.retry.lease_ms,
        retries_max: spec.retry.retries_max,
        crashes_max: spec.retry.crashes_max,
        user: spec.origin.user.clone(),
        task_type: spec.origin.task_type.map(|kind| kind.name().to_owned()),
        sla_milli: spec.origin.sla_milli,
    }
}

fn to_mount_row(mount: &Mount) -> MountRow {
    MountRow {
        volume: mount.volume.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    }
}

fn from_row(row: SpecRow) -> Result<TaskSpec, String> {
    let target = row.target.as_deref().map(WorkerId::new).transpose();
    let task_type = row
        .task_type
        .map(|name| TaskType::find(&name).ok_or_else(|| format!("'{name}' is no task type")))
        .transpose()?;
    let mount =
        |row: MountRow| Mount { volume: row.volume, target: row.target, read_only: row.read_only };
    Ok(TaskSpec {
        image: row.image,
        invocation: match row.invocation {
            InvocationRow::Image => Invocation::Image,
            InvocationRow::Shell(text) => Invocation::Shell(text),
            InvocationRow::Arguments(arguments) => Invocation::Arguments(arguments),
        },
        env: row.env,
        needs: Resources {
            cpu_milli: row.cpu_milli,
            memory_bytes: row.memory_bytes,
            storage_bytes: row.storage_bytes,
            gpu_milli: row.gpu_milli,
        },
        limits: Limits {
            pids_max: row.pids_max,
            timeout_ms: row.timeout_ms,
            grace_ms: row.grace_ms,
        },
        network: match row.network {
            NetworkRow::Default => Network::Default,
            NetworkRow::None => Network::None,
        },
        mounts: row.mounts.into_iter().map(mount).collect(),
        pull: match row.pull {
            PullRow::Missing => PullPolicy::Missing,
            PullRow::Always => PullPolicy::Always,
            PullRow::Never => PullPolicy::Never,
        },
        target: target.map_err(|error| error.to_string())?,
        name: row.name,
        retry: RetryPolicy {
            lease_ms: row.lease_ms,
            retries_max: row.retries_max,
            crashes_max: row.crashes_max,
        },
        origin: Origin { user: row.user, task_type, sla_milli: row.sla_milli },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_spec_survives_the_file() {
        let mut spec = TaskSpec::new("python:3-slim", TaskSpec::DEFAULT_NEEDS);
        assert_eq!(decode(&encode(&spec).unwrap()).unwrap(), spec);
        spec.invocation = Invocation::Arguments(vec!["a".into(), "ü\n".into()]);
        spec.env.insert("KEY".into(), "a \"quoted\" value".into());
        spec.needs.gpu_milli = 1500;
        spec.limits = Limits { pids_max: 7, timeout_ms: Some(9), grace_ms: 0 };
        spec.network = Network::None;
        let (volume, target) = ("data".into(), "/data".into());
        spec.mounts.push(Mount { volume, target, read_only: true });
        spec.pull = PullPolicy::Always;
        spec.target = Some(WorkerId::new("worker-1").unwrap());
        spec.name = Some("train".into());
        spec.retry = RetryPolicy { lease_ms: 15_000, retries_max: 3, crashes_max: 0 };
        let task_type = Some(TaskType::GpuTraining);
        spec.origin = Origin { user: "ada".into(), task_type, sla_milli: 1500 };
        assert_eq!(decode(&encode(&spec).unwrap()).unwrap(), spec);
        spec.invocation = Invocation::Shell("echo $X".into());
        spec.pull = PullPolicy::Never;
        assert_eq!(decode(&encode(&spec).unwrap()).unwrap(), spec);
    }

    /// The format is a promise: a store written today is read by every later version.
    #[test]
    fn the_text_of_a_spec_stays_as_it_is() {
        let spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS);
        assert_eq!(
            encode(&spec).unwrap(),
            concat!(
                r#"{"image":"busybox","invocation":"image","env":{},"cpu_milli":1000,"#,
                r#""memory_bytes":536870912,"storage_bytes":1073741824,"gpu_milli":0,"#,
                r#""pids_max":4096,"timeout_ms":null,"grace_ms":10000,"network":"default","#,
                r#""mounts":[],"pull":"missing","target":null,"name":null,"lease_ms":30000,"#,
                r#""retries_max":0,"crashes_max":5,"user":"","task_type":null,"sla_milli":2000}"#
            )
        );
    }
}
