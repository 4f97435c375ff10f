//! Waiting for an end. The master answers when it comes, so nothing polls.

use std::time::{Duration, Instant};

use cloudai_api::{JobView, TaskDetail, TaskQuery, TaskStatus, WAIT_MS_MAX};

use super::Session;
use crate::exit;
use crate::failure::Failure;
use crate::grammar::WaitArgs;
use crate::id::{JobRef, TaskRef};
use crate::output::{harmless, write_json};

/// How long a master may be away before a wait gives up.
const AWAY_MAX: Duration = Duration::from_mins(1);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Shorter than the API's bound, so that a proxy in between has no reason to give up first.
const ROUND_MS: u64 = if WAIT_MS_MAX < 25_000 { WAIT_MS_MAX } else { 25_000 };

/// How many failed tasks of an array are named at its end.
const FAILED_TOLD: u32 = 3;

enum Ended {
    Yes,
    TimedOut,
    Interrupted,
}

/// `wait`.
pub(super) fn wait(session: &mut Session, args: &WaitArgs) -> Result<u8, Failure> {
    let deadline = args.timeout.map(|timeout| Instant::now() + Duration::from_millis(timeout.0));
    let mut code = exit::OK;
    for task in &args.tasks {
        let one = match task.find_job() {
            Some(job) => wait_job(session, job, deadline)?,
            None => wait_task(session, *task, deadline)?,
        };
        if matches!(one, exit::INTERRUPTED | exit::TIMEOUT) {
            return Ok(one);
        }
        if code == exit::OK {
            code = one;
        }
    }
    Ok(code)
}

/// Waits for every task of a job, as `run` does for an array.
pub(super) fn wait_for_job(session: &mut Session, job: JobRef) -> Result<u8, Failure> {
    wait_job(session, job, None)
}

fn wait_job(session: &mut Session, job: JobRef, deadline: Option<Instant>) -> Result<u8, Failure> {
    let client = session.client.clone();
    let (ended, view) = until_ended(
        session,
        deadline,
        move |ms| client.job(job, Some(ms)),
        |view: &JobView| view.ended,
    )?;
    match (ended, view) {
        (Ended::Interrupted, _) => Ok(left(session, &format!("job {job}"))),
        (Ended::TimedOut, _) => Ok(late(session, &format!("job {job}"))),
        (Ended::Yes, Some(view)) if view.array.is_none() => {
            let task = view.first_task.parse().map_err(Failure::new)?;
            wait_task(session, task, deadline)
        }
        (Ended::Yes, Some(view)) => {
            tell_job(session, &view)?;
            if !session.json && view.counts.failed > 0 {
                tell_failed(session, &view);
            }
            let whole = view.counts.succeeded == view.counts.total();
            Ok(if whole { exit::OK } else { exit::NO })
        }
        (Ended::Yes, None) => Err(Failure::new(format!("job {job} gave no answer"))),
    }
}

fn wait_task(
    session: &mut Session,
    task: TaskRef,
    deadline: Option<Instant>,
) -> Result<u8, Failure> {
    let client = session.client.clone();
    let (ended, detail) = until_ended(
        session,
        deadline,
        move |ms| client.task(&task, Some(ms)),
        |detail: &TaskDetail| detail.summary.status.is_ended(),
    )?;
    match (ended, detail) {
        (Ended::Interrupted, _) => Ok(left(session, &task.to_string())),
        (Ended::TimedOut, _) => Ok(late(session, &task.to_string())),
        (Ended::Yes, detail) => {
            let outcome = detail.as_ref().and_then(|detail| detail.summary.outcome.clone());
            let (Some(detail), Some(outcome)) = (detail, outcome) else {
                return Err(Failure::new(format!("{task} ended without saying how")));
            };
            if session.json {
                write_json(&mut session.screen, &detail)?;
            } else {
                let cause = crate::output::show_cause(&outcome);
                let message = harmless(&outcome.message);
                let more = if message.is_empty() { message } else { format!(": {message}") };
                let status = detail.summary.status;
                let why = if cause == status.name() { more } else { format!(" ({cause}){more}") };
                session.screen.line(format!("{task} {status}{why}"))?;
            }
            Ok(exit::of_outcome(&outcome))
        }
    }
}

/// Asks again and again until the answer is an end, over a master that goes away for a while.
fn until_ended<T: Send + 'static>(
    session: &Session,
    deadline: Option<Instant>,
    ask: impl Fn(u64) -> Result<T, Failure> + Clone + Send + 'static,
    is_ended: impl Fn(&T) -> bool,
) -> Result<(Ended, Option<T>), Failure> {
    let mut heard = false;
    let mut away_since = None;
    loop {
        let left_ms = deadline.map_or(ROUND_MS, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            u64::try_from(left).unwrap_or(ROUND_MS).min(ROUND_MS)
        });
        let ask = ask.clone();
        match session.interrupts.unless_raised(move || ask(left_ms)) {
            None => return Ok((Ended::Interrupted, None)),
            Some(Ok(answer)) if is_ended(&answer) => return Ok((Ended::Yes, Some(answer))),
            Some(Ok(_)) => (heard, away_since) = (true, None),
            Some(Err(failure)) => {
                // An answer of the master is final; only its absence is worth waiting for. And a
                // master that was never there is an error at once.
                let temporary = failure.code.is_none_or(cloudai_api::ErrorCode::is_temporary);
                let since = *away_since.get_or_insert_with(Instant::now);
                if !temporary || !heard || since.elapsed() > AWAY_MAX {
                    return Err(failure);
                }
                if session.interrupts.raised_within(RETRY_AFTER) {
                    return Ok((Ended::Interrupted, None));
                }
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok((Ended::TimedOut, None));
        }
    }
}

fn tell_job(session: &mut Session, view: &JobView) -> Result<(), Failure> {
    if session.json {
        return write_json(&mut session.screen, view);
    }
    let counts = &view.counts;
    session.screen.line(format!(
        "job {}: {} succeeded, {} failed, {} cancelled",
        view.job, counts.succeeded, counts.failed, counts.cancelled
    ))
}

/// Names some of the tasks of an array that failed, and how to see the rest. The count is told
/// already, so an answer that does not come is passed over.
fn tell_failed(session: &mut Session, view: &JobView) {
    let query = TaskQuery {
        status: Some(TaskStatus::Failed),
        job: Some(view.job.clone()),
        limit: Some(FAILED_TOLD),
        ..TaskQuery::default()
    };
    let Ok(page) = session.client.tasks(&query) else {
        return;
    };
    for task in &page.tasks {
        let Some(outcome) = &task.outcome else { continue };
        let message = harmless(&outcome.message);
        let more = if message.is_empty() { message } else { format!(": {message}") };
        let cause = crate::output::show_cause(outcome);
        session.screen.message(format!("{} failed ({cause}){more}", task.task));
    }
    if view.counts.failed > page.tasks.len() as u64 {
        let job = &view.job;
        session.screen.message(format!("'tasks --job {job} --status failed' lists all of them"));
    }
}

fn left(session: &mut Session, what: &str) -> u8 {
    session.screen.message(format!("{what} goes on"));
    exit::INTERRUPTED
}

fn late(session: &mut Session, what: &str) -> u8 {
    session.screen.message(format!("{what} has not ended yet: gave up waiting"));
    exit::TIMEOUT
}
