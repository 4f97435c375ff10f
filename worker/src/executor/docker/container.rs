//! What the engine is asked to create for an attempt: a pure function of the assignment, the
//! settings and the engine's gates. It must never take a path, a label or a security option from a
//! task: volumes are names that the administrator declared. Read next: `life.rs`.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType,
};
use cloudai_model::{Cause, Invocation, Network, Outcome};

use super::connect::Features;
use super::gpu::GpuHold;
use super::{DockerSettings, OUTPUT_PATH, VolumeSource};
use crate::executor::Assignment;

/// Whose container it is; a restarted worker looks for this one and for [`LABEL_INSTANCE`].
pub(super) const LABEL_WORKER: &str = "cloudai.worker";
/// Which installation it belongs to, when two workers of one host have the same id.
pub(super) const LABEL_INSTANCE: &str = "cloudai.instance";
/// The attempt: `task-42.7-a1`.
pub(super) const LABEL_ATTEMPT: &str = "cloudai.attempt";
const LABEL_TASK: &str = "cloudai.task";
const LABEL_JOB: &str = "cloudai.job";
const LABEL_SESSION: &str = "cloudai.session";
/// How many thousandths of its GPUs it has; only with GPUs.
pub(super) const LABEL_GPU_MILLI: &str = "cloudai.gpu-milli";

/// Longest file of the engine's own record of a container's output, in bytes.
pub(super) const ENGINE_LOG_FILE_BYTES: u64 = 20 << 20;
/// How many of them it keeps.
pub(super) const ENGINE_LOG_FILES: u64 = 5;

/// Nanoseconds of processor time a second, for a thousandth of a core.
const NANOS_PER_MILLI_CORE: u64 = 1_000_000;
const MILLI_PER_CORE: u64 = 1000;

/// The container's name; `retry` is above 0 when the name before it was taken.
pub(super) fn name(assignment: &Assignment, retry: u32) -> String {
    match retry {
        0 => format!("cloudai-{}", assignment.attempt),
        _ => format!("cloudai-{}-{retry}", assignment.attempt),
    }
}

/// The whole request.
pub(super) fn body(
    assignment: &Assignment,
    settings: &DockerSettings,
    features: &Features,
    gpus: Option<&GpuHold>,
) -> Result<ContainerCreateBody, Outcome> {
    let spec = &assignment.spec;
    let (entrypoint, cmd) = match &spec.invocation {
        Invocation::Image => (None, None),
        Invocation::Shell(text) => {
            (Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()]), None)
        }
        Invocation::Arguments(arguments) => (None, Some(arguments.clone())),
    };
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint,
        cmd,
        env: Some(env(assignment, settings)),
        labels: Some(labels(assignment, settings)),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        // An anonymous volume: it exists in every image, the engine removes it with the container,
        // and what a hostile task leaves in it never lies where another user can reach it.
        volumes: Some(vec![OUTPUT_PATH.to_owned()]),
        host_config: Some(host_config(assignment, settings, features, gpus)?),
        ..ContainerCreateBody::default()
    })
}

fn labels(assignment: &Assignment, settings: &DockerSettings) -> HashMap<String, String> {
    let attempt = assignment.attempt;
    let mut labels = HashMap::from([
        (LABEL_WORKER.to_owned(), settings.worker.to_string()),
        (LABEL_INSTANCE.to_owned(), settings.instance.clone()),
        (LABEL_ATTEMPT.to_owned(), attempt.to_string()),
        (LABEL_TASK.to_owned(), attempt.task.to_string()),
        (LABEL_JOB.to_owned(), attempt.task.job.to_string()),
        (LABEL_SESSION.to_owned(), assignment.session.0.to_string()),
    ]);
    if assignment.spec.needs.gpu_milli > 0 {
        labels.insert(LABEL_GPU_MILLI.to_owned(), assignment.spec.needs.gpu_milli.to_string());
    }
    labels
}

/// The task's variables, then ours: a task cannot pretend to be another.
fn env(assignment: &Assignment, settings: &DockerSettings) -> Vec<String> {
    let attempt = assignment.attempt;
    let mut env = assignment.spec.env.clone();
    env.insert("CLOUDAI_TASK_ID".to_owned(), attempt.task.to_string());
    env.insert("CLOUDAI_JOB_ID".to_owned(), attempt.task.job.to_string());
    env.insert("CLOUDAI_ATTEMPT".to_owned(), attempt.no.0.to_string());
    env.insert("CLOUDAI_WORKER_ID".to_owned(), settings.worker.to_string());
    if let Some(index) = attempt.task.index {
        env.insert("CLOUDAI_ARRAY_INDEX".to_owned(), index.to_string());
    }
    env.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn host_config(
    assignment: &Assignment,
    settings: &DockerSettings,
    features: &Features,
    gpus: Option<&GpuHold>,
) -> Result<HostConfig, Outcome> {
    let spec = &assignment.spec;
    let memory = Some(signed(spec.needs.memory_bytes));
    let size = (features.bounds_storage && spec.needs.storage_bytes > 0)
        .then(|| HashMap::from([("size".to_owned(), spec.needs.storage_bytes.to_string())]));
    Ok(HostConfig {
        nano_cpus: Some(nano_cpus(spec.needs.cpu_milli, features.cores)),
        memory,
        memory_swap: memory,
        pids_limit: Some(i64::from(spec.limits.pids_max)),
        storage_opt: size,
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        init: Some(true),
        network_mode: match spec.network {
            Network::Default => None,
            Network::None => Some("none".to_owned()),
        },
        device_requests: gpus.map(|hold| vec![device_request(hold)]),
        mounts: Some(mounts(assignment, settings)?),
        log_config: Some(HostConfigLogConfig {
            typ: Some(features.log_driver.to_owned()),
            config: Some(log_bounds()),
        }),
        ..HostConfig::default()
    })
}

/// What the engine keeps of a container's output: enough to read on after a restart of the worker.
/// Said here, so that it is known from when on the beginning may be missing; see `log.rs`.
fn log_bounds() -> HashMap<String, String> {
    HashMap::from([
        ("max-size".to_owned(), ENGINE_LOG_FILE_BYTES.to_string()),
        ("max-file".to_owned(), ENGINE_LOG_FILES.to_string()),
    ])
}

/// The engine refuses more cores than its machine has; a worker that was told to declare more gives
/// each task all there are.
fn nano_cpus(cpu_milli: u64, cores: Option<u32>) -> i64 {
    let most = cores.map_or(u64::MAX, |cores| u64::from(cores) * MILLI_PER_CORE);
    signed(cpu_milli.min(most).saturating_mul(NANOS_PER_MILLI_CORE))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn device_request(hold: &GpuHold) -> DeviceRequest {
    DeviceRequest {
        device_ids: Some(hold.device_ids()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

fn mounts(assignment: &Assignment, settings: &DockerSettings) -> Result<Vec<Mount>, Outcome> {
    let declared = |mount: &cloudai_model::Mount| {
        let source = settings.volumes.get(&mount.volume).ok_or_else(|| {
            let (volume, worker) = (&mount.volume, &settings.worker);
            let words = format!(
                "worker {worker} declares no volume '{volume}': its administrator declares \
                 volumes with 'cloudai worker --volume'"
            );
            Outcome::new(Cause::Infra, words)
        })?;
        let (typ, source) = match source {
            VolumeSource::HostPath(path) => (MountType::BIND, path.to_string_lossy().into_owned()),
            VolumeSource::Named(name) => (MountType::VOLUME, name.clone()),
        };
        Ok(Mount {
            target: Some(mount.target.clone()),
            source: Some(source),
            typ: Some(typ),
            read_only: Some(mount.read_only),
            ..Mount::default()
        })
    };
    assignment.spec.mounts.iter().map(declared).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloudai_model::{AttemptId, AttemptNo, Session, TaskId, TaskSpec, WorkerId};

    use super::*;

    fn features() -> Features {
        Features {
            name: "test".into(),
            is_local: true,
            gpu_count: 0,
            bounds_storage: true,
            cores: Some(2),
            log_driver: "local",
        }
    }

    fn body_of(change: impl FnOnce(&mut TaskSpec)) -> Result<ContainerCreateBody, Outcome> {
        let mut spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS);
        change(&mut spec);
        let attempt = AttemptId { task: TaskId::indexed(42, 7), no: AttemptNo(2) };
        let assignment = Assignment { attempt, session: Session(3), spec: Arc::new(spec) };
        let mut settings = DockerSettings::new(WorkerId::new("worker-1").unwrap(), "here");
        settings.volumes.insert("data".into(), VolumeSource::HostPath("/srv/data".into()));
        body(&assignment, &settings, &features(), None)
    }

    #[test]
    fn a_task_cannot_pretend_to_be_another() {
        let body = body_of(|spec| {
            spec.env.insert("CLOUDAI_TASK_ID".into(), "task-1".into());
            spec.env.insert("A".into(), "b=c".into());
        })
        .unwrap();
        let want = [
            "A=b=c",
            "CLOUDAI_ARRAY_INDEX=7",
            "CLOUDAI_ATTEMPT=2",
            "CLOUDAI_JOB_ID=job-42",
            "CLOUDAI_TASK_ID=task-42.7",
            "CLOUDAI_WORKER_ID=worker-1",
        ];
        assert_eq!(body.env.unwrap(), want);
        assert_eq!(body.labels.unwrap()[LABEL_ATTEMPT], "task-42.7-a2");
    }

    #[test]
    fn only_declared_volumes_are_mounted() {
        let mount = |volume: &str| cloudai_model::Mount {
            volume: volume.into(),
            target: "/data".into(),
            read_only: true,
        };
        let body = body_of(|spec| spec.mounts.push(mount("data"))).unwrap();
        let mounts = body.host_config.unwrap().mounts.unwrap();
        assert_eq!(mounts[0].source.as_deref(), Some("/srv/data"));
        assert_eq!(mounts[0].read_only, Some(true));
        let outcome = body_of(|spec| spec.mounts.push(mount("etc"))).unwrap_err();
        assert!(outcome.message.contains("declares no volume 'etc'"), "{}", outcome.message);
    }

    #[test]
    fn needs_become_limits_that_the_engine_takes() {
        let body = body_of(|spec| spec.needs.cpu_milli = 64_000).unwrap();
        let host = body.host_config.unwrap();
        assert_eq!(host.nano_cpus, Some(2_000_000_000));
        assert_eq!(host.memory, host.memory_swap);
        assert_eq!(host.storage_opt.unwrap()["size"], (1u64 << 30).to_string());
        let body = body_of(|spec| spec.needs.storage_bytes = 0).unwrap();
        assert_eq!(body.host_config.unwrap().storage_opt, None);
    }

    #[test]
    fn a_shell_line_and_an_argument_vector_are_told_apart() {
        let body = body_of(|spec| spec.invocation = Invocation::Shell("a; b".into())).unwrap();
        assert_eq!((body.entrypoint.unwrap().len(), body.cmd), (3, None));
        let arguments = vec!["a".to_owned(), "b c".to_owned()];
        let body = body_of(|spec| spec.invocation = Invocation::Arguments(arguments)).unwrap();
        assert_eq!((body.entrypoint, body.cmd.unwrap()[1].as_str()), (None, "b c"));
    }
}
