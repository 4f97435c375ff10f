//! Model → wire. Nothing here can fail.

use std::collections::HashMap;
use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptReport, Cause, Invocation, Mount, Network, Outcome, PullPolicy, ReportWhat,
    Resources, StopReason, TaskSpec, Timestamp, Usage, WorkerId,
};

use prost::Message;

use super::{Change, FullReport, GIB, Hello, Orders, Registration, Report};
use crate::cluster::{self, change, held, session_down, session_up, task_spec};

/// Assigns of one message of orders in bytes; a single spec is bounded to a fraction of it.
const ORDERS_BYTES_MAX: usize = 2 << 20;
/// What an assign takes beyond its attempt's text and its spec, at most.
const ASSIGN_BYTES: usize = 32;

/// Thousandths as a whole with a fraction.
pub fn units(milli: u64) -> f64 {
    milli as f64 / 1000.0
}

/// Bytes as GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

/// Exact amounts.
pub const fn amounts(resources: Resources) -> cluster::Amounts {
    cluster::Amounts {
        cpu_milli: resources.cpu_milli,
        memory_bytes: resources.memory_bytes,
        storage_bytes: resources.storage_bytes,
        gpu_milli: resources.gpu_milli,
    }
}

/// A worker as it describes itself.
pub fn worker_info(worker: &Registration) -> cluster::WorkerInfo {
    let Resources { cpu_milli, memory_bytes, storage_bytes, gpu_milli } = worker.capacity;
    cluster::WorkerInfo {
        worker_id: worker.id.to_string(),
        worker_ip: worker.address.clone(),
        total_cpu: units(cpu_milli),
        total_memory: gib(memory_bytes),
        total_storage: gib(storage_bytes),
        total_gpu: units(gpu_milli),
    }
}

/// A whole spec.
pub fn spec(spec: &TaskSpec) -> cluster::TaskSpec {
    cluster::TaskSpec {
        image: spec.image.clone(),
        invocation: invocation(&spec.invocation),
        env: spec.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        needs: Some(amounts(spec.needs)),
        pids_max: spec.limits.pids_max,
        timeout_ms: spec.limits.timeout_ms.unwrap_or(0),
        grace_ms: spec.limits.grace_ms,
        network: network_word(spec.network).to_owned(),
        mounts: spec.mounts.iter().map(mount).collect(),
        pull: pull_word(spec.pull).to_owned(),
        lease_ms: spec.retry.lease_ms,
        retries_max: spec.retry.retries_max,
        name: spec.name.clone().unwrap_or_default(),
        target_worker_id: target(spec),
        user_id: spec.origin.user.clone(),
        task_type: task_type(spec),
        sla_milli: spec.origin.sla_milli,
        crashes_max: Some(spec.retry.crashes_max),
    }
}

fn invocation(invocation: &Invocation) -> Option<task_spec::Invocation> {
    match invocation {
        Invocation::Image => None,
        Invocation::Shell(text) => Some(task_spec::Invocation::Shell(text.clone())),
        Invocation::Arguments(values) => {
            let values = values.clone();
            Some(task_spec::Invocation::Arguments(cluster::Arguments { values }))
        }
    }
}

fn mount(mount: &Mount) -> cluster::Mount {
    cluster::Mount {
        volume: mount.volume.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    }
}

fn target(spec: &TaskSpec) -> String {
    spec.target.as_ref().map(WorkerId::to_string).unwrap_or_default()
}

fn task_type(spec: &TaskSpec) -> String {
    spec.origin.task_type.map(|kind| kind.name().to_owned()).unwrap_or_default()
}

/// The word for a network.
pub const fn network_word(network: Network) -> &'static str {
    match network {
        Network::Default => "default",
        Network::None => "none",
    }
}

/// The word for a pull policy.
pub const fn pull_word(pull: PullPolicy) -> &'static str {
    match pull {
        PullPolicy::Missing => "missing",
        PullPolicy::Always => "always",
        PullPolicy::Never => "never",
    }
}

/// The word for a cause.
pub const fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Exit(_) => "exit",
        Cause::Oom => "oom",
        Cause::Timeout => "timeout",
        Cause::Image => "image",
        Cause::WorkerLost => "worker_lost",
        Cause::Infra => "infra",
        Cause::Cancelled => "cancelled",
    }
}

/// The word for a stop.
pub const fn stop_word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Cancelled => "cancelled",
        StopReason::Stale => "stale",
    }
}

fn started(at: Timestamp) -> cluster::Started {
    cluster::Started { at_unix_ms: at.unix_ms() }
}

pub(super) fn ended(
    started_at: Option<Timestamp>,
    outcome: &Outcome,
    at: Timestamp,
) -> cluster::Ended {
    let exit_code = match outcome.cause {
        Cause::Exit(code) => code,
        _ => 0,
    };
    cluster::Ended {
        cause: cause_word(outcome.cause).to_owned(),
        exit_code,
        message: outcome.message.clone(),
        at_unix_ms: at.unix_ms(),
        started_at_unix_ms: started_at.map_or(0, Timestamp::unix_ms),
    }
}

/// An attempt as an entry of a full report.
pub fn held(report: &AttemptReport) -> cluster::Held {
    let what = match &report.what {
        ReportWhat::Accepted => held::What::Accepted(true),
        ReportWhat::Started(at) => held::What::Started(started(*at)),
        ReportWhat::Ended { started_at, outcome, at } => {
            held::What::Ended(ended(*started_at, outcome, *at))
        }
    };
    cluster::Held { attempt: report.attempt.to_string(), what: Some(what) }
}

/// A change. That an attempt was accepted is no change on the wire: the next full report says it.
pub fn change(change: &Change) -> Option<cluster::Change> {
    let (attempt, what) = match change {
        Change::State(report) => match &report.what {
            ReportWhat::Accepted => return None,
            ReportWhat::Started(at) => (report.attempt, change::What::Started(started(*at))),
            ReportWhat::Ended { started_at, outcome, at } => {
                (report.attempt, change::What::Ended(ended(*started_at, outcome, *at)))
            }
        },
        Change::Note { attempt, at, text } => {
            let note = cluster::Note { at_unix_ms: at.unix_ms(), text: text.clone() };
            (*attempt, change::What::Note(note))
        }
    };
    Some(cluster::Change { attempt: attempt.to_string(), what: Some(what) })
}

/// Percent, 0 to 100.
pub fn usage(usage: Usage) -> cluster::Usage {
    let percent = |bp: u16| f64::from(bp) / 100.0;
    cluster::Usage {
        cpu: percent(usage.cpu_bp),
        memory: percent(usage.memory_bp),
        storage: percent(usage.storage_bp),
        gpu: percent(usage.gpu_bp),
    }
}

/// The first message of a session.
pub fn hello(hello: &Hello) -> cluster::SessionUp {
    up(session_up::Message::Hello(cluster::Hello {
        worker: Some(worker_info(&hello.worker)),
        session: hello.session.map_or(0, |session| session.0),
        held: hello.held.iter().map(held).collect(),
        volumes: hello.volumes.iter().cloned().collect(),
        version: hello.version.clone(),
        capacity: Some(amounts(hello.worker.capacity)),
        degraded: hello.degraded.clone().unwrap_or_default(),
        nonce: hello.nonce,
    }))
}

/// A report.
pub fn report(report: &Report) -> cluster::SessionUp {
    up(session_up::Message::Report(cluster::Report {
        sequence: report.sequence,
        changes: report.changes.iter().filter_map(change).collect(),
        full: report.full.as_ref().map(full_report),
    }))
}

fn full_report(full: &FullReport) -> cluster::FullReport {
    cluster::FullReport {
        held: full.held.iter().map(held).collect(),
        usage: Some(usage(full.usage)),
        degraded: full.degraded.clone().unwrap_or_default(),
    }
}

/// The last message of a session that ends in good order.
pub fn goodbye(reason: &str) -> cluster::SessionUp {
    up(session_up::Message::Goodbye(cluster::Goodbye { reason: reason.to_owned() }))
}

const fn up(message: session_up::Message) -> cluster::SessionUp {
    cluster::SessionUp { message: Some(message) }
}

/// Orders as one message. Specs that are shared travel once.
pub fn orders(orders: &Orders) -> cluster::SessionDown {
    in_parts(orders, usize::MAX).pop().unwrap_or_default()
}

/// Orders as few messages of which none is larger than a transport takes: a plan may give one
/// worker thousands of attempts, each with a long spec of its own.
pub fn orders_in_parts(orders: &Orders) -> Vec<cluster::SessionDown> {
    in_parts(orders, ORDERS_BYTES_MAX)
}

fn in_parts(orders: &Orders, bytes_max: usize) -> Vec<cluster::SessionDown> {
    let stop = |(attempt, reason): &(AttemptId, StopReason)| cluster::Stop {
        attempt: attempt.to_string(),
        reason: stop_word(*reason).to_owned(),
    };
    let mut part = cluster::Orders {
        acknowledged: orders.acknowledged,
        stop: orders.stop.iter().map(stop).collect(),
        forget: orders.forget.iter().map(AttemptId::to_string).collect(),
        ..cluster::Orders::default()
    };
    let mut parts = Vec::new();
    let (mut places, mut bytes) = (HashMap::new(), 0);
    for (attempt, shared) in &orders.assign {
        let attempt = attempt.to_string();
        let key = Arc::as_ptr(shared);
        let new = (!places.contains_key(&key)).then(|| spec(shared));
        let size = attempt.len() + ASSIGN_BYTES + new.as_ref().map_or(0, Message::encoded_len);
        if bytes + size > bytes_max && !part.assign.is_empty() {
            parts.push(down(std::mem::take(&mut part)));
            places.clear();
            bytes = 0;
        }
        bytes += size;
        let place = *places.entry(key).or_insert_with(|| {
            // One that went out with an earlier part goes with this one again.
            part.specs.push(new.unwrap_or_else(|| spec(shared)));
            part.specs.len() as u32 - 1
        });
        part.assign.push(cluster::Assign { attempt, spec: place });
    }
    parts.push(down(part));
    parts
}

const fn down(orders: cluster::Orders) -> cluster::SessionDown {
    cluster::SessionDown { message: Some(session_down::Message::Orders(orders)) }
}

/// An attempt for a worker that speaks only the unary calls.
pub fn task(
    attempt: AttemptId,
    of: &TaskSpec,
    worker: &WorkerId,
    submitted_at: Timestamp,
) -> cluster::Task {
    cluster::Task {
        task_id: attempt.to_string(),
        docker_image: of.image.clone(),
        command: command(&of.invocation),
        req_cpu: units(of.needs.cpu_milli),
        req_memory: gib(of.needs.memory_bytes),
        req_storage: gib(of.needs.storage_bytes),
        req_gpu: units(of.needs.gpu_milli),
        target_worker_id: worker.to_string(),
        user_id: of.origin.user.clone(),
        sla_multiplier: units(of.origin.sla_milli.into()),
        task_type: task_type(of),
        task_name: of.name.clone().unwrap_or_default(),
        submitted_at: (submitted_at.unix_ms() / 1000).cast_signed(),
        spec: Some(spec(of)),
    }
}

/// The invocation as one string for `/bin/sh -c`: arguments are quoted, so that a worker which does
/// not know the vector runs the same words.
fn command(invocation: &Invocation) -> String {
    match invocation {
        Invocation::Image => String::new(),
        Invocation::Shell(text) => text.clone(),
        Invocation::Arguments(values) => {
            values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(" ")
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The status word of a result.
pub const fn status_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Exit(0) => "success",
        Cause::Cancelled => "cancelled",
        _ => "failed",
    }
}
