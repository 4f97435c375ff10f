//! What each answer looks like to a person. Pure: an answer and the present go in, text comes out.

use std::fmt::Write as _;

use cloudai_api::{
    Amounts, Cause, ClusterStatus, Explanation, FileList, JobView, OutcomeView, QueueView,
    SpecView, TaskDetail, TaskPage, TaskSummary, WorkerList, WorkerStatus, WorkerView,
};

use super::{Table, harmless};
use crate::units::{show_bytes, show_count, show_span};

/// The cluster at a glance.
pub fn show_status(status: &ClusterStatus) -> String {
    let (workers, tasks) = (&status.workers, &status.tasks);
    let mut text = format!(
        "Total workers: {}\nActive workers: {}\nInactive workers: {}\n",
        workers.total, workers.active, workers.inactive
    );
    if workers.degraded > 0 {
        let _ = writeln!(text, "Degraded workers: {}", workers.degraded);
    }
    if workers.put_aside > 0 {
        let _ = writeln!(text, "Workers put aside: {}", workers.put_aside);
    }
    let _ = writeln!(text, "Running tasks: {}", tasks.running);
    let _ = writeln!(text, "Waiting tasks: {} queued, {} assigned", tasks.queued, tasks.assigned);
    let _ = writeln!(
        text,
        "Ended tasks: {} succeeded, {} failed, {} cancelled",
        tasks.succeeded, tasks.failed, tasks.cancelled
    );
    let _ =
        writeln!(text, "Master: version {}, up {}", status.version, show_span(status.uptime_ms));
    let _ = writeln!(text, "Workers and agents reach it at: {}", status.grpc_address);
    let _ = writeln!(text, "Store: {}", harmless(&status.store));
    let _ = write!(text, "Policy: {}", status.policy);
    if let Some(agent) = &status.agent {
        let state = if agent.active { "decides" } else { "is late, so the policy decides" };
        let _ = write!(
            text,
            "\nAgent: {state}; heard {} ago, {} placements taken, {} refused",
            show_span(agent.last_heard_ms_ago),
            agent.accepted,
            agent.refused
        );
    }
    text
}

/// Every worker with what it has.
pub fn show_workers(list: &WorkerList) -> String {
    if list.workers.is_empty() {
        return "No workers registered yet".to_owned();
    }
    list.workers.iter().map(show_worker).collect::<Vec<_>>().join("\n\n")
}

/// One worker with what it has and does.
pub fn show_worker(worker: &WorkerView) -> String {
    let mut text = format!("{}  {}  {}\n", worker.id, status_word(worker), worker.address);
    if let Some(reason) = &worker.reason {
        let _ = writeln!(text, "  Gets no new work: {}", harmless(reason));
    } else if worker.status == WorkerStatus::Inactive {
        text.push_str(
            "  Gets no new work: not heard; each of its tasks is tried again when its lease ends\n",
        );
    }
    text.push_str(&indent(&resources_table(worker)));
    let heard = worker.last_heard_ms_ago.map_or_else(
        || "not since the master started".to_owned(),
        |ms| format!("{} ago", show_span(ms)),
    );
    let _ = write!(text, "\n  Running tasks: {}\n  Last heard: {heard}", worker.running);
    let version = if worker.version.is_empty() { "unknown" } else { &worker.version };
    let _ = write!(
        text,
        "\n  Version: {} ({}, session {})",
        harmless(version),
        if worker.kind == cloudai_api::WorkerKind::Session { "stream" } else { "unary calls" },
        worker.session
    );
    if !worker.volumes.is_empty() {
        let _ = write!(text, "\n  Volumes: {}", worker.volumes.join(", "));
    }
    if let Some(tasks) = worker.tasks.as_ref().filter(|tasks| !tasks.is_empty()) {
        let mut table = Table::new(&["TASK", "ATTEMPT", "STATUS", "IMAGE", "TAKES"]);
        for task in tasks {
            table.row([
                task.task.clone(),
                task.attempt.to_string(),
                task.status.to_string(),
                task.image.clone(),
                show_amounts(&task.allocated),
            ]);
        }
        let _ = write!(text, "\n{}", indent(&table.show()));
    }
    text
}

fn status_word(worker: &WorkerView) -> &'static str {
    match worker.status {
        WorkerStatus::Active => "Active",
        WorkerStatus::Inactive => "Inactive",
        WorkerStatus::Degraded => "Degraded",
        WorkerStatus::PutAside => "Put aside",
    }
}

fn resources_table(worker: &WorkerView) -> String {
    let (all, taken, free) = (&worker.capacity, &worker.allocated, &worker.free);
    let usage = |part: fn(&cloudai_api::UsagePercent) -> f64| {
        worker
            .usage
            .as_ref()
            .map_or_else(|| "-".to_owned(), |usage| format!("{:.0} %", part(usage)))
    };
    let mut table = Table::new(&["", "TOTAL", "ALLOCATED", "FREE", "IN USE"]);
    let mut row = |name: &str, show: &dyn Fn(&Amounts) -> String, used: String| {
        table.row([name.to_owned(), show(all), show(taken), show(free), used]);
    };
    row("CPU", &|amounts| show_count(amounts.cpus), usage(|usage| usage.cpu));
    row("Memory", &|amounts| show_bytes(amounts.memory_bytes), usage(|usage| usage.memory));
    row("Storage", &|amounts| show_bytes(amounts.storage_bytes), usage(|usage| usage.storage));
    row("GPU", &|amounts| show_count(amounts.gpus), usage(|usage| usage.gpu));
    table.show()
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn show_amounts(amounts: &Amounts) -> String {
    let mut text = format!(
        "{} CPU, {} memory, {} storage",
        show_count(amounts.cpus),
        show_bytes(amounts.memory_bytes),
        show_bytes(amounts.storage_bytes)
    );
    if amounts.gpus > 0.0 {
        let _ = write!(text, ", {} GPU", show_count(amounts.gpus));
    }
    text
}

/// A page of tasks.
pub fn show_tasks(page: &TaskPage, now_ms: u64) -> String {
    if page.tasks.is_empty() {
        return "No tasks".to_owned();
    }
    let mut table =
        Table::new(&["TASK", "STATUS", "END", "IMAGE", "NAME", "WORKER", "RAN", "SUBMITTED"]);
    for task in &page.tasks {
        table.row([
            task.task.clone(),
            task.status.to_string(),
            task.outcome.as_ref().map(show_cause).unwrap_or_default(),
            task.image.clone(),
            task.name.clone().unwrap_or_default(),
            task.worker.clone().unwrap_or_default(),
            ran(task, now_ms).map(show_span).unwrap_or_default(),
            ago(task.submitted_at_ms, now_ms),
        ]);
    }
    table.show()
}

/// How long a task's container ran, or has run until now.
fn ran(task: &TaskSummary, now_ms: u64) -> Option<u64> {
    let end = if task.status.is_ended() { task.finished_at_ms? } else { now_ms };
    Some(end.saturating_sub(task.started_at_ms?))
}

fn ago(at_ms: u64, now_ms: u64) -> String {
    format!("{} ago", show_span(now_ms.saturating_sub(at_ms)))
}

/// `exit 3`, `oom`, `image`.
pub(crate) fn show_cause(outcome: &OutcomeView) -> String {
    match (outcome.cause, outcome.exit_code) {
        (Cause::Exit, Some(code)) => format!("exit {code}"),
        (cause, _) => cause.to_string(),
    }
}

/// A task with everything that is known of it.
pub fn show_task(task: &TaskDetail, now_ms: u64) -> String {
    let summary = &task.summary;
    let mut lines = vec![("Task", summary.task.clone()), ("Status", status_text(task))];
    let mut push = |name, value: Option<String>| {
        if let Some(value) = value {
            lines.push((name, value));
        }
    };
    push("Name", summary.name.clone());
    push("User", summary.user.clone());
    push("Image", Some(summary.image.clone()));
    push("Command", command_text(&task.spec));
    push("Needs", Some(show_amounts(&task.spec.needs)));
    push("Only on", task.spec.worker.clone());
    push("Worker", summary.worker.clone());
    push("Submitted", Some(show_time(summary.submitted_at_ms)));
    push("Started", summary.started_at_ms.map(show_time));
    push("Finished", summary.finished_at_ms.map(show_time));
    push("Ran", ran(summary, now_ms).map(show_span));
    push("Time-out", task.spec.timeout_ms.map(show_span));
    push("Lease", Some(show_span(task.spec.lease_ms)));
    push("Retries", Some(task.spec.retries.to_string()).filter(|retries| retries != "0"));
    push("Crashes", crashes_text(task));
    push("Infra", infra_text(task));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{:<11}{}", format!("{name}:"), harmless(&value));
    }
    text.push_str(&sections(task));
    text.trim_end().to_owned()
}

fn crashes_text(task: &TaskDetail) -> Option<String> {
    let max = task.spec.crashes_max;
    let words =
        |crashes| format!("its worker was lost {} while it ran; {max} allowed", times(crashes));
    Some(task.crashes).filter(|crashes| *crashes > 0).map(words)
}

fn infra_text(task: &TaskDetail) -> Option<String> {
    let words =
        |losses| format!("lost {} to an engine, a disk, or before it started", times(losses));
    Some(task.infra_losses).filter(|losses| *losses > 0).map(words)
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn status_text(task: &TaskDetail) -> String {
    let mut text = task.summary.status.to_string();
    if task.cancel_requested && !task.summary.status.is_ended() {
        text.push_str(", being cancelled");
    }
    if let Some(outcome) = &task.summary.outcome {
        let _ = write!(text, " ({})", show_cause(outcome));
        if !outcome.message.is_empty() {
            let _ = write!(text, ": {}", outcome.message);
        }
    }
    text
}

fn command_text(spec: &SpecView) -> Option<String> {
    let joined = |words: &Vec<String>| {
        shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
    };
    let shell = spec.shell.as_ref().map(|shell| format!("/bin/sh -c {shell:?}"));
    shell.or_else(|| spec.command.as_ref().map(joined))
}

/// Attempts (when there was more than one), notes and files.
fn sections(task: &TaskDetail) -> String {
    let mut text = String::new();
    if task.attempts.len() > 1 {
        text.push_str("Attempts:\n");
        for attempt in &task.attempts {
            let end = attempt.outcome.as_ref().map(show_end).unwrap_or_default();
            let line = format!(
                "  {} on {}: {} {end}",
                attempt.attempt,
                attempt.worker,
                attempt.state.name()
            );
            let _ = writeln!(text, "{}", harmless(&line));
        }
    }
    if !task.notes.is_empty() {
        text.push_str("Events:\n");
        for note in &task.notes {
            let _ = writeln!(text, "  {}  {}", show_time(note.at_ms), harmless(&note.text));
        }
    }
    if !task.files.is_empty() {
        text.push_str("Files:\n");
        for file in &task.files {
            let _ = writeln!(text, "  {}  {}", harmless(&file.path), show_bytes(file.size_bytes));
        }
    }
    text
}

/// The cause of an attempt's end, with what was said of it.
fn show_end(outcome: &OutcomeView) -> String {
    if outcome.message.is_empty() {
        return show_cause(outcome);
    }
    format!("{} ({})", show_cause(outcome), outcome.message)
}

/// A moment in UTC: `2026-11-23 12:00:00.5Z`.
pub fn show_time(at_ms: u64) -> String {
    let ms = i64::try_from(at_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| format!("{at_ms} ms"), |at| at.to_string().replace('T', " "))
}

/// A job, counted.
pub fn show_job(job: &JobView, now_ms: u64) -> String {
    let counts = &job.counts;
    let mut text = format!("Job {}: {} tasks of {}", job.job, counts.total(), harmless(&job.image));
    if let Some(array) = &job.array {
        let _ = write!(text, ", indices {} to {}", array.first, array.last);
        if let Some(at_once) = array.at_once {
            let _ = write!(text, ", at most {at_once} at once");
        }
    }
    if let Some(name) = &job.name {
        let _ = write!(text, "\nName: {}", harmless(name));
    }
    let _ = write!(text, "\nSubmitted: {}", ago(job.submitted_at_ms, now_ms));
    let _ = write!(
        text,
        "\n{} queued, {} assigned, {} running, {} succeeded, {} failed, {} cancelled",
        counts.queued,
        counts.assigned,
        counts.running,
        counts.succeeded,
        counts.failed,
        counts.cancelled
    );
    text
}

/// Why a task is where it is.
pub fn show_explanation(explanation: &Explanation) -> String {
    let mut text = format!(
        "{} ({}): {}",
        explanation.task,
        explanation.status,
        harmless(&explanation.summary)
    );
    for worker in &explanation.workers {
        let _ = write!(text, "\n  {}: {}", worker.worker, harmless(&worker.reason));
    }
    if let Some(ahead) = explanation.position.filter(|ahead| *ahead > 0) {
        let _ = match ahead {
            1 => write!(text, "\n  one other kind of tasks is looked at before it"),
            _ => write!(text, "\n  {ahead} other kinds of tasks are looked at before it"),
        };
    }
    text
}

/// What waits, by shape.
pub fn show_queue(queue: &QueueView) -> String {
    if queue.shapes.is_empty() {
        return "The queue is empty".to_owned();
    }
    let mut table = Table::new(&["COUNT", "NEXT", "EACH NEEDS", "ONLY ON", "WHY THE NEXT WAITS"]);
    for shape in &queue.shapes {
        table.row([
            shape.count.to_string(),
            shape.first_task.clone(),
            show_amounts(&shape.needs),
            shape.worker.clone().unwrap_or_default(),
            shape.reason.clone(),
        ]);
    }
    format!("Waiting tasks: {}\n{}", queue.waiting, table.show())
}

/// The output files of a task.
pub fn show_files(files: &FileList) -> String {
    if files.files.is_empty() {
        return "No files: a task leaves files by writing them to /output".to_owned();
    }
    let mut table = Table::new(&["FILE", "SIZE"]);
    for file in &files.files {
        table.row([file.path.clone(), show_bytes(file.size_bytes)]);
    }
    table.show()
}
