//! What the core and the store know, as the API says it.

use std::fmt::Write as _;

use cloudai_api::{
    self as api, Amounts, AttemptState, AttemptView, Explanation, JobView, OutcomeView, QueueView,
    RunningTask, ShapeView, SpecView, TaskCounts, TaskSummary, UsagePercent, WorkerCounts,
    WorkerReason, WorkerView,
};
use cloudai_database::{self as database, LostAttempt, StatusCounts};
use cloudai_master_core::{self as core, ClusterView, HeldView, WorkerStatus};
use cloudai_model::{
    Cause, Ended, Hold, Invocation, JobShape, LiveState, LossCause, Network, Outcome, PullPolicy,
    Resources, Spent, TaskRecord, TaskSpec, TaskState, TaskStatus, TaskType, Usage, WorkerKind,
};
use cloudai_scheduler::{Shape, Standing};

/// Amounts with fractions where the model counts thousandths.
fn amounts(resources: Resources) -> Amounts {
    Amounts {
        cpus: resources.cpu_milli as f64 / 1000.0,
        memory_bytes: resources.memory_bytes,
        storage_bytes: resources.storage_bytes,
        gpus: resources.gpu_milli as f64 / 1000.0,
    }
}

/// The API's word for a status.
pub(in super::super) const fn task_status(status: TaskStatus) -> api::TaskStatus {
    match status {
        TaskStatus::Queued => api::TaskStatus::Queued,
        TaskStatus::Assigned => api::TaskStatus::Assigned,
        TaskStatus::Running => api::TaskStatus::Running,
        TaskStatus::Succeeded => api::TaskStatus::Succeeded,
        TaskStatus::Failed => api::TaskStatus::Failed,
        TaskStatus::Cancelled => api::TaskStatus::Cancelled,
    }
}

/// Tasks by status.
pub(in super::super) const fn task_counts(counts: StatusCounts) -> TaskCounts {
    TaskCounts {
        queued: counts.queued,
        assigned: counts.assigned,
        running: counts.running,
        succeeded: counts.succeeded,
        failed: counts.failed,
        cancelled: counts.cancelled,
    }
}

fn outcome(cause: Cause, message: &str) -> OutcomeView {
    let (cause, exit_code) = match cause {
        Cause::Exit(code) => (api::Cause::Exit, Some(code)),
        Cause::Oom => (api::Cause::Oom, None),
        Cause::Timeout => (api::Cause::Timeout, None),
        Cause::Image => (api::Cause::Image, None),
        Cause::WorkerLost => (api::Cause::WorkerLost, None),
        Cause::Infra => (api::Cause::Infra, None),
        Cause::Cancelled => (api::Cause::Cancelled, None),
    };
    OutcomeView { cause, exit_code, message: message.to_owned() }
}

fn ended(ended: &Outcome) -> OutcomeView {
    outcome(ended.cause, &ended.message)
}

fn loss(lost: &LostAttempt) -> OutcomeView {
    let cause = match lost.cause {
        LossCause::WorkerLost | LossCause::WorkerStopped => Cause::WorkerLost,
        LossCause::Infra => Cause::Infra,
        LossCause::Failed(cause) => cause,
    };
    outcome(cause, &lost.message)
}

/// How a task ended, when it has.
pub(in super::super) fn task_outcome(record: &TaskRecord) -> Option<OutcomeView> {
    match &record.state {
        TaskState::Ended(end) => Some(ended(&end.outcome)),
        TaskState::Fresh | TaskState::Live(_) => None,
    }
}

/// A task in a list.
pub(in super::super) fn task_summary(record: &TaskRecord) -> TaskSummary {
    let (hold, started_at) = holder(&record.state);
    let finished_at = match &record.state {
        TaskState::Ended(end) => {
            Some(end.by.as_ref().map_or(end.ended_at, |attempt| attempt.finished_at))
        }
        TaskState::Fresh | TaskState::Live(_) => None,
    };
    TaskSummary {
        task: record.id.to_string(),
        status: task_status(record.status()),
        image: record.spec.image.clone(),
        name: record.spec.name.clone(),
        user: user(&record.spec),
        worker: hold.map(|hold| hold.worker.to_string()),
        attempt: record.find_attempt().map(|attempt| attempt.no.0),
        outcome: task_outcome(record),
        submitted_at_ms: record.submitted_at.unix_ms(),
        started_at_ms: started_at,
        finished_at_ms: finished_at.map(cloudai_model::Timestamp::unix_ms),
    }
}

/// Who holds or held the task, and since when its container runs or ran.
fn holder(state: &TaskState) -> (Option<&Hold>, Option<u64>) {
    match state {
        TaskState::Fresh => (None, None),
        TaskState::Live(live) => match &live.state {
            LiveState::Queued(_) => (None, None),
            LiveState::Assigned(hold) => (Some(hold), None),
            LiveState::Running { hold, started_at } => (Some(hold), Some(started_at.unix_ms())),
        },
        TaskState::Ended(end) => end.by.as_ref().map_or((None, None), |attempt| {
            (Some(&attempt.hold), attempt.started_at.map(cloudai_model::Timestamp::unix_ms))
        }),
    }
}

fn user(spec: &TaskSpec) -> Option<String> {
    (!spec.origin.user.is_empty()).then(|| spec.origin.user.clone())
}

/// What a task has used of its budgets, its last attempt included.
pub(in super::super) fn spent(record: &TaskRecord, lost: &[LostAttempt]) -> Spent {
    let mut spent = Spent::default();
    for lost in lost {
        spent.count(lost.cause.budget(lost.started_at.is_some()));
    }
    if let TaskState::Ended(Ended { outcome, by: Some(by), .. }) = &record.state {
        let cause = match outcome.cause {
            Cause::WorkerLost => LossCause::WorkerLost,
            Cause::Infra => LossCause::Infra,
            _ => return spent,
        };
        spent.count(cause.budget(by.started_at.is_some()));
    }
    spent
}

/// What a live task has used of the budgets that are not its user's, as words.
fn spent_in_words(record: &TaskRecord) -> String {
    let TaskState::Live(live) = &record.state else { return String::new() };
    let times = |count| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let Spent { crashes, infra, .. } = live.spent;
    let mut words = String::new();
    if crashes > 0 {
        let (times, max) = (times(crashes), record.spec.retry.crashes_max);
        let _ = write!(words, "; its worker was lost {times} while it ran (crashes_max is {max})");
    }
    if infra > 0 {
        let times = times(infra);
        let _ = write!(words, "; it was lost {times} to an engine, a disk, or before it started");
    }
    words
}

/// Every attempt of a task, the first one first.
pub(in super::super) fn attempts(record: &TaskRecord, lost: &[LostAttempt]) -> Vec<AttemptView> {
    let gone = lost.iter().map(|lost| AttemptView {
        attempt: lost.no.0,
        worker: lost.hold.worker.to_string(),
        state: AttemptState::Lost,
        placed_at_ms: Some(lost.hold.placed_at.unix_ms()),
        started_at_ms: lost.started_at.map(cloudai_model::Timestamp::unix_ms),
        finished_at_ms: Some(lost.lost_at.unix_ms()),
        outcome: Some(loss(lost)),
    });
    gone.chain(last_attempt(record)).collect()
}

fn last_attempt(record: &TaskRecord) -> Option<AttemptView> {
    let (hold, started_at_ms) = holder(&record.state);
    let (hold, attempt) = (hold?, record.find_attempt()?);
    let end = match &record.state {
        TaskState::Ended(end) => end.by.as_ref().map(|by| (by.finished_at, &end.outcome)),
        TaskState::Fresh | TaskState::Live(_) => None,
    };
    Some(AttemptView {
        attempt: attempt.no.0,
        worker: hold.worker.to_string(),
        state: match (&end, started_at_ms) {
            (Some(_), _) => AttemptState::Ended,
            (None, Some(_)) => AttemptState::Running,
            (None, None) => AttemptState::Assigned,
        },
        placed_at_ms: Some(hold.placed_at.unix_ms()),
        started_at_ms,
        finished_at_ms: end.map(|(at, _)| at.unix_ms()),
        outcome: end.map(|(_, outcome)| ended(outcome)),
    })
}

/// What a task runs, with every default filled in.
pub(in super::super) fn spec_view(spec: &TaskSpec) -> SpecView {
    let (command, shell) = match &spec.invocation {
        Invocation::Image => (None, None),
        Invocation::Shell(text) => (None, Some(text.clone())),
        Invocation::Arguments(arguments) => (Some(arguments.clone()), None),
    };
    let volume = |mount: &cloudai_model::Mount| api::Volume {
        volume: mount.volume.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    };
    SpecView {
        command,
        shell,
        env: spec.env.clone(),
        needs: amounts(spec.needs),
        pids: spec.limits.pids_max,
        timeout_ms: spec.limits.timeout_ms,
        grace_ms: spec.limits.grace_ms,
        lease_ms: spec.retry.lease_ms,
        retries: spec.retry.retries_max,
        crashes_max: spec.retry.crashes_max,
        network: match spec.network {
            Network::Default => api::Network::Default,
            Network::None => api::Network::None,
        },
        volumes: spec.mounts.iter().map(volume).collect(),
        pull: match spec.pull {
            PullPolicy::Missing => api::PullPolicy::Missing,
            PullPolicy::Always => api::PullPolicy::Always,
            PullPolicy::Never => api::PullPolicy::Never,
        },
        worker: spec.target.as_ref().map(ToString::to_string),
        task_type: spec.origin.task_type.map(task_type),
        sla_multiplier: f64::from(spec.origin.sla_milli) / 1000.0,
    }
}

const fn task_type(kind: TaskType) -> api::TaskType {
    match kind {
        TaskType::CpuLight => api::TaskType::CpuLight,
        TaskType::CpuHeavy => api::TaskType::CpuHeavy,
        TaskType::MemoryHeavy => api::TaskType::MemoryHeavy,
        TaskType::GpuInference => api::TaskType::GpuInference,
        TaskType::GpuTraining => api::TaskType::GpuTraining,
        TaskType::Mixed => api::TaskType::Mixed,
    }
}

/// A job with its counts.
pub(in super::super) fn job_view(job: &database::JobView) -> JobView {
    let array = match job.shape {
        JobShape::Single => None,
        JobShape::Array { first, last, at_once_max } => {
            Some(api::ArrayRange { first, last, at_once: at_once_max })
        }
    };
    JobView {
        job: job.id.0.to_string(),
        image: job.spec.image.clone(),
        name: job.spec.name.clone(),
        user: user(&job.spec),
        array,
        first_task: job.shape.task_id(job.id, job.shape.span().0).to_string(),
        counts: task_counts(job.counts),
        ended: job.counts.ended() == job.shape.task_count(),
        submitted_at_ms: job.submitted_at.unix_ms(),
    }
}

/// A worker, without the attempts that it holds.
pub(in super::super) fn worker_view(worker: &WorkerStatus, usage: Option<Usage>) -> WorkerView {
    let record = &worker.record;
    let percent = |bp: u16| f64::from(bp) / 100.0;
    let (status, reason) = match &worker.standing {
        Standing::Active => (api::WorkerStatus::Active, None),
        Standing::Inactive => (api::WorkerStatus::Inactive, None),
        Standing::Degraded(why) => (api::WorkerStatus::Degraded, Some(why.clone())),
        Standing::PutAside(why) => (api::WorkerStatus::PutAside, Some(format!("put aside {why}"))),
    };
    WorkerView {
        id: record.id.to_string(),
        status,
        reason,
        address: record.address.clone(),
        kind: match record.kind {
            WorkerKind::Session => api::WorkerKind::Session,
            WorkerKind::Unary => api::WorkerKind::Unary,
        },
        version: record.version.clone(),
        session: record.session.0,
        registered_at_ms: record.registered_at.unix_ms(),
        last_heard_ms_ago: Some(worker.heard_ms_ago),
        capacity: amounts(record.capacity),
        allocated: amounts(worker.allocated),
        free: amounts(worker.free),
        usage: usage.map(|usage| UsagePercent {
            cpu: percent(usage.cpu_bp),
            memory: percent(usage.memory_bp),
            storage: percent(usage.storage_bp),
            gpu: percent(usage.gpu_bp),
        }),
        running: worker.held.len() as u64,
        tasks: None,
        volumes: record.volumes.iter().cloned().collect(),
    }
}

/// An attempt that a worker holds.
pub(in super::super) fn running_task(held: HeldView, record: &TaskRecord) -> RunningTask {
    RunningTask {
        task: held.attempt.task.to_string(),
        attempt: held.attempt.no.0,
        status: if held.running { api::TaskStatus::Running } else { api::TaskStatus::Assigned },
        image: record.spec.image.clone(),
        allocated: amounts(record.spec.needs),
        started_at_ms: holder(&record.state).1,
    }
}

/// Workers by how they stand.
pub(in super::super) fn worker_counts(view: &ClusterView) -> WorkerCounts {
    let mut counts = WorkerCounts { total: view.workers.len() as u64, ..WorkerCounts::default() };
    for worker in &view.workers {
        *match worker.standing {
            Standing::Active => &mut counts.active,
            Standing::Inactive => &mut counts.inactive,
            Standing::Degraded(_) => &mut counts.degraded,
            Standing::PutAside(_) => &mut counts.put_aside,
        } += 1;
    }
    counts
}

/// What waits, by shape.
pub(in super::super) fn queue_view(view: &ClusterView) -> QueueView {
    let shape = |waiting: &core::WaitingView| ShapeView {
        count: waiting.count,
        first_task: waiting.first.to_string(),
        needs: amounts(waiting.shape.needs),
        worker: waiting.shape.target.as_ref().map(ToString::to_string),
        reason: match waiting.reason.as_str() {
            "" => "a worker has room: it is placed next".to_owned(),
            reason => reason.to_owned(),
        },
    };
    QueueView { waiting: view.tasks.queued, shapes: view.waiting.iter().map(shape).collect() }
}

/// Why a task is where it is. `live` is what the core says of it, with the queue of that moment.
pub(in super::super) fn explanation(
    record: &TaskRecord,
    live: Option<(&core::Explanation, &ClusterView)>,
    last_lost: Option<&LostAttempt>,
) -> Explanation {
    let mut made = Explanation {
        task: record.id.to_string(),
        status: task_status(record.status()),
        summary: end_in_words(record),
        workers: Vec::new(),
        position: None,
    };
    let Some((live, view)) = live else { return made };
    let last_lost = last_lost.map(loss_in_words).unwrap_or_default();
    made.summary = format!("{}{last_lost}{}", live.wait, spent_in_words(record));
    if let core::Wait::Held { running, .. } = &live.wait {
        // The core is what knows now; the record was read a moment before.
        made.status = if *running { api::TaskStatus::Running } else { api::TaskStatus::Assigned };
        return made;
    }
    made.status = api::TaskStatus::Queued;
    made.workers = live
        .workers
        .iter()
        .map(|verdict| WorkerReason {
            worker: verdict.worker.to_string(),
            reason: verdict.refusal.as_ref().map_or("has room".to_owned(), ToString::to_string),
        })
        .collect();
    let shape = Shape::of(&record.spec);
    let before = view.waiting.iter().position(|waiting| *waiting.shape == shape);
    made.position = before.map(|count| count as u64);
    made
}

/// What became of the attempt before, for a task that is tried again.
fn loss_in_words(lost: &LostAttempt) -> String {
    let message = if lost.message.is_empty() { "no more is known" } else { &lost.message };
    format!("; attempt {} on {} was lost: {message}", lost.no.0, lost.hold.worker)
}

/// The end of a task as a sentence.
fn end_in_words(record: &TaskRecord) -> String {
    let TaskState::Ended(end) = &record.state else {
        return "it changes at this moment: ask again".to_owned();
    };
    let by = end.by.as_ref().map(|by| format!(" on {}", by.hold.worker)).unwrap_or_default();
    let message = match end.outcome.message.as_str() {
        "" => String::new(),
        words => format!(": {words}"),
    };
    match end.outcome.cause {
        Cause::Exit(0) => format!("succeeded{by}"),
        Cause::Exit(code) => format!("failed{by} with exit code {code}{message}"),
        Cause::Cancelled => format!("cancelled{by}{message}"),
        cause => format!("failed{by} ({cause}){message}"),
    }
}
