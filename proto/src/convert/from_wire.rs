//! Wire → model. Everything is checked; an error names the field as the proto does.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptReport, Cause, Invocation, Limits, Mount, Network, Origin, Outcome,
    PullPolicy, ReportWhat, Resources, RetryPolicy, Session, StopReason, TaskSpec, TaskType,
    Timestamp, Usage, WorkerId, limits,
};

use super::{
    Change, ConvertError, DEGRADED_LEN_MAX, FullReport, GIB, Hello, Orders, Registration, Report,
    UnaryHeartbeat, UnaryResult, WORKER_PORT,
};
use crate::cluster::{self, change, held, task_spec};

/// Most volumes that a worker may declare.
const VOLUMES_MAX: usize = 1_000;
/// Longest text of a note in bytes; the rest is cut off.
const NOTE_LEN_MAX: usize = 1024;
/// Longest address or version in bytes.
const TEXT_LEN_MAX: usize = 255;

/// Cores or GPUs, which come as doubles, in thousandths.
pub fn milli(field: &'static str, value: f64, most: u64) -> Result<u64, ConvertError> {
    scaled(field, value, 1000.0, most)
}

/// GiB, which come as doubles, in bytes.
pub fn bytes(field: &'static str, value: f64) -> Result<u64, ConvertError> {
    scaled(field, value, GIB, limits::BYTES_MAX)
}

fn scaled(field: &'static str, value: f64, unit: f64, most: u64) -> Result<u64, ConvertError> {
    if !value.is_finite() {
        return Err(ConvertError::new(field, format!("{value} is not a number")));
    }
    if value < 0.0 {
        return Err(ConvertError::new(field, format!("{value} is negative")));
    }
    let rounded = (value * unit).round();
    if rounded > most as f64 {
        let most = most as f64 / unit;
        return Err(ConvertError::new(field, format!("{value} is too much: at most {most}")));
    }
    Ok(rounded as u64)
}

/// An attempt's id.
pub fn attempt(text: &str) -> Result<AttemptId, ConvertError> {
    text.parse().map_err(|error| ConvertError::new("attempt", format!("{error}")))
}

/// A worker's id.
pub fn worker_id(text: &str) -> Result<WorkerId, ConvertError> {
    WorkerId::new(text).map_err(|error| ConvertError::new("worker_id", error.to_string()))
}

/// An address as `host:port`; a bare host gets port 50052, a bare IPv6 address its brackets.
pub fn address(text: &str) -> Result<String, ConvertError> {
    let error = |why: &str| Err(ConvertError::new("worker_ip", why));
    if text.is_empty() {
        return error("is empty: give host:port");
    }
    if text.len() > TEXT_LEN_MAX {
        return error("is longer than 255 bytes");
    }
    let odd = |b: u8| !b.is_ascii_graphic() || b"/?#@\\\"<>".contains(&b);
    if text.bytes().any(odd) {
        return error("is not an address: give host:port without a scheme");
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{WORKER_PORT}"));
    }
    match text.rsplit_once(':') {
        Some((host, _)) if text.starts_with('[') && !host.ends_with(']') => {
            Ok(format!("{text}:{WORKER_PORT}"))
        }
        None => Ok(format!("{text}:{WORKER_PORT}")),
        Some(("", _)) => error("has no host: give host:port"),
        Some((_, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(text.to_owned()),
            _ => error("has a port that is not 1 to 65535"),
        },
    }
}

fn amounts(amounts: cluster::Amounts) -> Result<Resources, ConvertError> {
    let parts = [
        ("cpu_milli", amounts.cpu_milli, limits::CPU_MILLI_MAX),
        ("memory_bytes", amounts.memory_bytes, limits::BYTES_MAX),
        ("storage_bytes", amounts.storage_bytes, limits::BYTES_MAX),
        ("gpu_milli", amounts.gpu_milli, limits::GPU_MILLI_MAX),
    ];
    for (field, value, most) in parts {
        if value > most {
            return Err(ConvertError::new(field, format!("{value} is too much: at most {most}")));
        }
    }
    Ok(Resources {
        cpu_milli: amounts.cpu_milli,
        memory_bytes: amounts.memory_bytes,
        storage_bytes: amounts.storage_bytes,
        gpu_milli: amounts.gpu_milli,
    })
}

/// A worker as it describes itself. What it offers may be zero: nothing fits then.
pub fn worker_info(info: &cluster::WorkerInfo) -> Result<Registration, ConvertError> {
    Ok(Registration {
        id: worker_id(&info.worker_id)?,
        address: address(&info.worker_ip)?,
        capacity: Resources {
            cpu_milli: milli("total_cpu", info.total_cpu, limits::CPU_MILLI_MAX)?,
            memory_bytes: bytes("total_memory", info.total_memory)?,
            storage_bytes: bytes("total_storage", info.total_storage)?,
            gpu_milli: milli("total_gpu", info.total_gpu, limits::GPU_MILLI_MAX)?,
        },
    })
}

/// The first message of a session.
pub fn hello(hello: cluster::Hello) -> Result<Hello, ConvertError> {
    let info = hello.worker.ok_or_else(|| ConvertError::new("worker", "is missing"))?;
    let mut worker = worker_info(&info)?;
    if let Some(exact) = hello.capacity {
        worker.capacity = amounts(exact)?;
    }
    if hello.volumes.len() > VOLUMES_MAX {
        return Err(ConvertError::new("volumes", "has more than 1000 names"));
    }
    if hello.version.len() > TEXT_LEN_MAX {
        return Err(ConvertError::new("version", "is longer than 255 bytes"));
    }
    Ok(Hello {
        worker,
        session: (hello.session != 0).then_some(Session(hello.session)),
        held: hello.held.into_iter().map(held).collect::<Result<_, _>>()?,
        volumes: hello.volumes.into_iter().collect::<BTreeSet<_>>(),
        version: hello.version,
        degraded: degraded(hello.degraded),
        nonce: hello.nonce,
    })
}

fn degraded(reason: String) -> Option<String> {
    (!reason.is_empty()).then(|| cut(reason, DEGRADED_LEN_MAX))
}

/// The text in at most `len_max` bytes, cut at a character's border.
fn cut(mut text: String, len_max: usize) -> String {
    text.truncate(text.floor_char_boundary(len_max));
    text
}

/// A cause from its word.
pub fn cause(word: &str, exit_code: i32) -> Result<Cause, ConvertError> {
    Ok(match word {
        "exit" => Cause::Exit(exit_code),
        "oom" => Cause::Oom,
        "timeout" => Cause::Timeout,
        "image" => Cause::Image,
        "worker_lost" => Cause::WorkerLost,
        "infra" => Cause::Infra,
        "cancelled" => Cause::Cancelled,
        _ => return Err(unknown("cause", word)),
    })
}

pub(super) fn ended(ended: cluster::Ended) -> Result<ReportWhat, ConvertError> {
    let cause = cause(&ended.cause, ended.exit_code)?;
    let outcome = Outcome::new(cause, ended.message);
    let started_at = (ended.started_at_unix_ms != 0).then_some(Timestamp(ended.started_at_unix_ms));
    Ok(ReportWhat::Ended { started_at, outcome, at: Timestamp(ended.at_unix_ms) })
}

fn held(held: cluster::Held) -> Result<AttemptReport, ConvertError> {
    let what = match held.what {
        None => return Err(ConvertError::new("what", "is missing")),
        Some(held::What::Accepted(_)) => ReportWhat::Accepted,
        Some(held::What::Started(started)) => ReportWhat::Started(Timestamp(started.at_unix_ms)),
        Some(held::What::Ended(end)) => ended(end)?,
    };
    Ok(AttemptReport { attempt: attempt(&held.attempt)?, what })
}

fn change(change: cluster::Change) -> Result<Change, ConvertError> {
    let attempt = attempt(&change.attempt)?;
    let what = match change.what {
        None => return Err(ConvertError::new("what", "is missing")),
        Some(change::What::Started(started)) => ReportWhat::Started(Timestamp(started.at_unix_ms)),
        Some(change::What::Ended(end)) => ended(end)?,
        Some(change::What::Note(note)) => {
            let text = cut(note.text, NOTE_LEN_MAX);
            return Ok(Change::Note { attempt, at: Timestamp(note.at_unix_ms), text });
        }
    };
    Ok(Change::State(AttemptReport { attempt, what }))
}

/// A report.
pub fn report(report: cluster::Report) -> Result<Report, ConvertError> {
    Ok(Report {
        sequence: report.sequence,
        changes: report.changes.into_iter().map(change).collect::<Result<_, _>>()?,
        full: report.full.map(full_report).transpose()?,
    })
}

fn full_report(full: cluster::FullReport) -> Result<FullReport, ConvertError> {
    let held = full.held.into_iter().map(held).collect::<Result<_, _>>()?;
    let usage = full
        .usage
        .map_or_else(Usage::default, |got| usage(got.cpu, got.memory, got.storage, got.gpu));
    Ok(FullReport { held, usage, degraded: degraded(full.degraded) })
}

/// Percents; nonsense is brought into 0 to 100, because usage decides nothing.
fn usage(cpu: f64, memory: f64, storage: f64, gpu: f64) -> Usage {
    // A cast from a double saturates and makes 0 of NaN.
    let bp = |percent: f64| ((percent * 100.0).round() as u16).min(Usage::BP_MAX);
    Usage { cpu_bp: bp(cpu), memory_bp: bp(memory), storage_bp: bp(storage), gpu_bp: bp(gpu) }
}

/// Orders. Attempts that point to one spec share it.
pub fn orders(orders: cluster::Orders) -> Result<Orders, ConvertError> {
    let specs = orders
        .specs
        .into_iter()
        .map(|of| Ok(Arc::new(spec(of)?)))
        .collect::<Result<Vec<_>, ConvertError>>()?;
    let assign = |assign: cluster::Assign| {
        let why = || ConvertError::new("spec", format!("there is no spec {}", assign.spec));
        let spec = specs.get(assign.spec as usize).cloned().ok_or_else(why)?;
        Ok((attempt(&assign.attempt)?, spec))
    };
    let stop = |stop: cluster::Stop| Ok((attempt(&stop.attempt)?, stop_reason(&stop.reason)?));
    Ok(Orders {
        acknowledged: orders.acknowledged,
        assign: orders.assign.into_iter().map(assign).collect::<Result<_, _>>()?,
        stop: orders.stop.into_iter().map(stop).collect::<Result<_, _>>()?,
        forget: orders.forget.iter().map(|text| attempt(text)).collect::<Result<_, _>>()?,
    })
}

fn stop_reason(word: &str) -> Result<StopReason, ConvertError> {
    match word {
        "cancelled" => Ok(StopReason::Cancelled),
        "stale" => Ok(StopReason::Stale),
        _ => Err(unknown("reason", word)),
    }
}

fn unknown(field: &'static str, word: &str) -> ConvertError {
    let shown = word.chars().take(40).collect::<String>();
    ConvertError::new(field, format!("'{}' is not known", shown.escape_debug()))
}

/// A spec, validated. Numbers that were left out get their defaults.
pub fn spec(spec: cluster::TaskSpec) -> Result<TaskSpec, ConvertError> {
    let needs = spec.needs.ok_or_else(|| ConvertError::new("needs", "is missing"))?;
    let mount = |mount: cluster::Mount| Mount {
        volume: mount.volume,
        target: mount.target,
        read_only: mount.read_only,
    };
    let known = TaskSpec {
        image: spec.image,
        invocation: match spec.invocation {
            None => Invocation::Image,
            Some(task_spec::Invocation::Shell(text)) => Invocation::Shell(text),
            Some(task_spec::Invocation::Arguments(of)) => Invocation::Arguments(of.values),
        },
        env: spec.env.into_iter().collect(),
        needs: amounts(needs)?,
        limits: Limits {
            pids_max: or_default(spec.pids_max, Limits::default().pids_max),
            timeout_ms: (spec.timeout_ms != 0).then_some(spec.timeout_ms),
            grace_ms: spec.grace_ms,
        },
        network: network(&spec.network)?,
        mounts: spec.mounts.into_iter().map(mount).collect(),
        pull: pull(&spec.pull)?,
        target: target(&spec.target_worker_id)?,
        name: (!spec.name.is_empty()).then_some(spec.name),
        retry: RetryPolicy {
            lease_ms: or_default(spec.lease_ms, RetryPolicy::default().lease_ms),
            retries_max: spec.retries_max,
            crashes_max: spec.crashes_max.unwrap_or(RetryPolicy::default().crashes_max),
        },
        origin: Origin {
            user: spec.user_id,
            task_type: task_type(&spec.task_type)?,
            sla_milli: or_default(spec.sla_milli, Origin::default().sla_milli),
        },
    };
    valid(known)
}

fn valid(spec: TaskSpec) -> Result<TaskSpec, ConvertError> {
    match spec.validate() {
        Ok(()) => Ok(spec),
        Err(error) => Err(ConvertError::new(error.field, error.why)),
    }
}

fn or_default<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

fn network(word: &str) -> Result<Network, ConvertError> {
    match word {
        "" | "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        _ => Err(unknown("network", word)),
    }
}

fn pull(word: &str) -> Result<PullPolicy, ConvertError> {
    match word {
        "" | "missing" => Ok(PullPolicy::Missing),
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        _ => Err(unknown("pull", word)),
    }
}

fn target(text: &str) -> Result<Option<WorkerId>, ConvertError> {
    if text.is_empty() {
        return Ok(None);
    }
    let error =
        |error: cloudai_model::IdError| ConvertError::new("target_worker_id", error.to_string());
    WorkerId::new(text).map(Some).map_err(error)
}

fn task_type(word: &str) -> Result<Option<TaskType>, ConvertError> {
    if word.is_empty() {
        return Ok(None);
    }
    TaskType::find(word).map(Some).ok_or_else(|| unknown("task_type", word))
}

/// What a unary `Task` asks to run. With our extension it is the whole spec; without, the fields
/// of the contract, and needs that were left out (0) get their defaults.
pub fn task(task: cluster::Task) -> Result<TaskSpec, ConvertError> {
    if let Some(whole) = task.spec {
        return spec(whole);
    }
    let needs = Resources {
        cpu_milli: milli("req_cpu", task.req_cpu, limits::CPU_MILLI_MAX)?,
        memory_bytes: bytes("req_memory", task.req_memory)?,
        storage_bytes: bytes("req_storage", task.req_storage)?,
        gpu_milli: milli("req_gpu", task.req_gpu, limits::GPU_MILLI_MAX)?,
    };
    let default = TaskSpec::DEFAULT_NEEDS;
    let mut known = TaskSpec::new(
        task.docker_image,
        Resources {
            cpu_milli: or_default(needs.cpu_milli, default.cpu_milli),
            memory_bytes: or_default(needs.memory_bytes, default.memory_bytes),
            storage_bytes: or_default(needs.storage_bytes, default.storage_bytes),
            gpu_milli: needs.gpu_milli,
        },
    );
    if !task.command.is_empty() {
        known.invocation = Invocation::Shell(task.command);
    }
    known.target = target(&task.target_worker_id)?;
    known.name = (!task.task_name.is_empty()).then_some(task.task_name);
    known.origin.user = task.user_id;
    known.origin.task_type = task_type(&task.task_type)?;
    let sla_milli = milli("sla_multiplier", task.sla_multiplier, 1_000_000)?;
    known.origin.sla_milli = or_default(sla_milli as u32, known.origin.sla_milli);
    valid(known)
}

/// A heartbeat of a worker that speaks only the unary calls.
pub fn heartbeat(heartbeat: &cluster::Heartbeat) -> Result<UnaryHeartbeat, ConvertError> {
    let running = heartbeat.running_tasks.iter().filter_map(|task| task.task_id.parse().ok());
    Ok(UnaryHeartbeat {
        worker: worker_id(&heartbeat.worker_id)?,
        running: running.collect(),
        usage: usage(
            heartbeat.cpu_usage,
            heartbeat.memory_usage,
            heartbeat.storage_usage,
            heartbeat.gpu_usage,
        ),
    })
}

/// A result of a worker that speaks only the unary calls.
pub fn task_result(result: cluster::TaskResult) -> Result<UnaryResult, ConvertError> {
    let cause = match result.status.as_str() {
        "success" => Cause::Exit(0),
        "failed" => Cause::Exit(1),
        "cancelled" => Cause::Cancelled,
        other => return Err(unknown("status", other)),
    };
    let id = |error: cloudai_model::IdError| ConvertError::new("task_id", error.to_string());
    Ok(UnaryResult {
        attempt: result.task_id.parse().map_err(id)?,
        worker: worker_id(&result.worker_id)?,
        outcome: Outcome::new(cause, ""),
        logs: result.logs,
    })
}
