//! What a client sent, checked and made into the model's types. Floats end here.

use std::sync::Arc;

use cloudai_api::{Network, PullPolicy, SubmitRequest, TaskStatus, TaskType, Volume};
use cloudai_master_core::Submission;
use cloudai_model::{
    self as model, Invocation, JobShape, Limits, Mount, Origin, RequestId, Resources, RetryPolicy,
    TaskSpec, WorkerId, limits,
};

use super::super::errors::Failure;

/// Least and most of `sla_multiplier`.
const SLA_MULTIPLIER: (f64, f64) = (1.5, 2.5);

/// A submit, validated; the error names the first field that is wrong.
pub(in super::super) fn submission(request: SubmitRequest) -> Result<Submission, Failure> {
    let request_id = request.request_id.as_deref().map(RequestId::new).transpose();
    let request_id = request_id.map_err(|error| Failure::field("request_id", error))?;
    let shape = match request.array {
        None => JobShape::Single,
        Some(array) => {
            JobShape::Array { first: array.first, last: array.last, at_once_max: array.at_once }
        }
    };
    let shape = shape.validate()?;
    let spec = spec(request)?;
    spec.validate()?;
    Ok(Submission { spec: Arc::new(spec), shape, request: request_id, known: None })
}

fn spec(request: SubmitRequest) -> Result<TaskSpec, Failure> {
    let needs = needs(&request)?;
    let origin = origin(&request)?;
    let target = request.worker.as_deref().map(WorkerId::new).transpose();
    Ok(TaskSpec {
        image: request.image,
        invocation: invocation(request.command, request.shell)?,
        env: request.env,
        needs,
        limits: Limits {
            pids_max: request.pids.unwrap_or(Limits::default().pids_max),
            timeout_ms: request.timeout_ms,
            grace_ms: request.grace_ms.unwrap_or(Limits::default().grace_ms),
        },
        network: match request.network.unwrap_or_default() {
            Network::Default => model::Network::Default,
            Network::None => model::Network::None,
        },
        mounts: request.volumes.into_iter().map(mount).collect(),
        pull: match request.pull.unwrap_or_default() {
            PullPolicy::Missing => model::PullPolicy::Missing,
            PullPolicy::Always => model::PullPolicy::Always,
            PullPolicy::Never => model::PullPolicy::Never,
        },
        target: target.map_err(|error| Failure::field("worker", error))?,
        name: request.name,
        retry: RetryPolicy {
            lease_ms: request.lease_ms.unwrap_or(RetryPolicy::default().lease_ms),
            retries_max: request.retries.unwrap_or(RetryPolicy::default().retries_max),
            crashes_max: request.crashes_max.unwrap_or(RetryPolicy::default().crashes_max),
        },
        origin,
    })
}

fn needs(request: &SubmitRequest) -> Result<Resources, Failure> {
    let default = TaskSpec::DEFAULT_NEEDS;
    let cpu_milli = match request.cpus {
        None => default.cpu_milli,
        Some(0.0) => {
            return Err(Failure::field("cpus", "0 would never run: give more, for example 0.5"));
        }
        Some(cpus) => thousandths("cpus", cpus, limits::CPU_MILLI_MAX)?,
    };
    let gpu_milli = match request.gpus {
        None => default.gpu_milli,
        Some(gpus) => thousandths("gpus", gpus, limits::GPU_MILLI_MAX)?,
    };
    Ok(Resources {
        cpu_milli,
        memory_bytes: request.memory_bytes.unwrap_or(default.memory_bytes),
        storage_bytes: request.storage_bytes.unwrap_or(default.storage_bytes),
        gpu_milli,
    })
}

/// An amount that may have a fraction, as an integer. Only 0 itself becomes 0.
fn thousandths(field: &str, amount: f64, most_milli: u64) -> Result<u64, Failure> {
    let most = most_milli / 1000;
    if !amount.is_finite() {
        return Err(Failure::field(field, format!("{amount} is not an amount")));
    }
    if amount < 0.0 {
        return Err(Failure::field(field, format!("{amount} is negative")));
    }
    if amount > most as f64 {
        return Err(Failure::field(field, format!("{amount} is out of bounds: at most {most}")));
    }
    let milli = (amount * 1000.0).round() as u64;
    if milli == 0 && amount > 0.0 {
        return Err(Failure::field(field, format!("{amount} is too little: at least 0.001")));
    }
    Ok(milli)
}

fn invocation(command: Option<Vec<String>>, shell: Option<String>) -> Result<Invocation, Failure> {
    match (command, shell) {
        (Some(_), Some(_)) => {
            Err(Failure::field("shell", "comes together with 'command': give one of the two"))
        }
        (Some(arguments), None) if arguments.is_empty() => Ok(Invocation::Image),
        (Some(arguments), None) => Ok(Invocation::Arguments(arguments)),
        (None, Some(text)) if text.trim().is_empty() => {
            Err(Failure::field("shell", "is empty: leave it out to run what the image says"))
        }
        (None, Some(text)) => Ok(Invocation::Shell(text)),
        (None, None) => Ok(Invocation::Image),
    }
}

fn mount(volume: Volume) -> Mount {
    Mount { volume: volume.volume, target: volume.target, read_only: volume.read_only }
}

fn origin(request: &SubmitRequest) -> Result<Origin, Failure> {
    let user = request.user.clone().unwrap_or_default();
    if user.len() > limits::NAME_LEN_MAX || user.chars().any(char::is_control) {
        let why = format!("a user has at most {} bytes, all printable", limits::NAME_LEN_MAX);
        return Err(Failure::field("user", why));
    }
    let (least, most) = SLA_MULTIPLIER;
    let sla_milli = match request.sla_multiplier {
        None => Origin::default().sla_milli,
        Some(k) if (least..=most).contains(&k) => (k * 1000.0).round() as u32,
        Some(k) => {
            let why = format!("{k} is out of bounds: from {least} to {most}");
            return Err(Failure::field("sla_multiplier", why));
        }
    };
    Ok(Origin { user, task_type: request.task_type.map(task_type), sla_milli })
}

const fn task_type(kind: TaskType) -> model::TaskType {
    match kind {
        TaskType::CpuLight => model::TaskType::CpuLight,
        TaskType::CpuHeavy => model::TaskType::CpuHeavy,
        TaskType::MemoryHeavy => model::TaskType::MemoryHeavy,
        TaskType::GpuInference => model::TaskType::GpuInference,
        TaskType::GpuTraining => model::TaskType::GpuTraining,
        TaskType::Mixed => model::TaskType::Mixed,
    }
}

/// The model's word for a status.
pub(in super::super) const fn model_status(status: TaskStatus) -> model::TaskStatus {
    match status {
        TaskStatus::Queued => model::TaskStatus::Queued,
        TaskStatus::Assigned => model::TaskStatus::Assigned,
        TaskStatus::Running => model::TaskStatus::Running,
        TaskStatus::Succeeded => model::TaskStatus::Succeeded,
        TaskStatus::Failed => model::TaskStatus::Failed,
        TaskStatus::Cancelled => model::TaskStatus::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use cloudai_api::ArrayRange;

    use super::*;

    fn check(change: impl FnOnce(&mut SubmitRequest), want: Result<(), &str>) {
        let mut request = SubmitRequest { image: "busybox".into(), ..SubmitRequest::default() };
        change(&mut request);
        let got = submission(request).map(drop).map_err(|error| {
            error.body().error.field.clone().expect("an error of a submit names its field")
        });
        assert_eq!(got, want.map_err(str::to_owned));
    }

    #[test]
    fn an_image_alone_gets_every_default() {
        let request = SubmitRequest { image: "busybox".into(), ..SubmitRequest::default() };
        let made = submission(request).unwrap();
        assert_eq!(*made.spec, TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
        assert_eq!(made.shape, JobShape::Single);
    }

    #[test]
    fn each_amount_that_cannot_be_is_refused_by_its_name() {
        for cpus in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e9, f64::MAX] {
            check(|request| request.cpus = Some(cpus), Err("cpus"));
        }
        for gpus in [-1.0, f64::NAN, f64::NEG_INFINITY, 1e-9, 1e9] {
            check(|request| request.gpus = Some(gpus), Err("gpus"));
        }
        check(|request| request.gpus = Some(0.0), Ok(()));
        check(|request| request.cpus = Some(0.001), Ok(()));
        check(|request| request.memory_bytes = Some(0), Err("memory_bytes"));
        check(|request| request.memory_bytes = Some(u64::MAX), Err("memory_bytes"));
        check(|request| request.storage_bytes = Some(u64::MAX), Err("storage_bytes"));
        for k in [f64::NAN, 0.0, 1.4, 2.6] {
            check(|request| request.sla_multiplier = Some(k), Err("sla_multiplier"));
        }
    }

    #[test]
    fn each_word_that_cannot_be_is_refused_by_its_name() {
        check(|request| request.image.clear(), Err("image"));
        check(|request| request.request_id = Some(String::new()), Err("request_id"));
        check(|request| request.worker = Some("../x".into()), Err("worker"));
        check(|request| request.user = Some("a\nb".into()), Err("user"));
        check(|request| request.shell = Some(" ".into()), Err("shell"));
        check(|request| request.pids = Some(0), Err("pids"));
        check(|request| request.timeout_ms = Some(0), Err("timeout_ms"));
        check(|request| request.lease_ms = Some(1), Err("lease_ms"));
        check(|request| request.retries = Some(1001), Err("retries"));
        check(|request| request.crashes_max = Some(1001), Err("crashes_max"));
        check(|request| request.crashes_max = Some(0), Ok(()));
        let array = |first, last, at_once| Some(ArrayRange { first, last, at_once });
        check(|request| request.array = array(2, 1, None), Err("array"));
        check(|request| request.array = array(1, 2, Some(0)), Err("array"));
        check(|request| request.array = array(0, u32::MAX, None), Err("array"));
        check(
            |request| {
                request.command = Some(vec!["true".into()]);
                request.shell = Some("true".into());
            },
            Err("shell"),
        );
    }

    #[test]
    fn fractions_become_the_nearest_thousandth() {
        let request = SubmitRequest {
            image: "busybox".into(),
            cpus: Some(1.5),
            gpus: Some(0.25),
            sla_multiplier: Some(1.7),
            ..SubmitRequest::default()
        };
        let spec = submission(request).unwrap().spec;
        assert_eq!((spec.needs.cpu_milli, spec.needs.gpu_milli), (1500, 250));
        assert_eq!(spec.origin.sla_milli, 1700);
    }
}
