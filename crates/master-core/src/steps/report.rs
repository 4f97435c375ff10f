//! A worker tells what became of its attempts. A report counts only for the current attempt of
//! its task, on the worker and under the session that hold it; a stale one is answered and counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptReport, Event, LiveState, LossCause, Now, ReportWhat, Session, StopReason,
    WorkerId, WorkerKind, WorkerRecord,
};

use crate::batch::{Batch, Effect, Order};
use crate::command::{Answer, FullReport, Rejection};
use crate::core::{Core, bounds};
use crate::liveness::{Alarm, Missed};
use crate::steps::hello::heard;
use crate::steps::{finish, hello};

/// See [`crate::Command::Report`].
pub(crate) struct Report {
    pub(crate) worker: WorkerId,
    pub(crate) session: Option<Session>,
    pub(crate) sequence: u64,
    pub(crate) changes: Vec<AttemptReport>,
    pub(crate) full: Option<FullReport>,
}

pub(crate) fn report(core: &mut Core, now: Now, report: Report, batch: &mut Batch) -> Answer {
    let Report { worker, session, sequence, changes, full } = report;
    let Some(known) = core.facts.workers.get(&worker) else {
        return Answer::Rejected(Rejection::NotRegistered(worker));
    };
    let current = known.record.session;
    if let Err(rejection) = check_claim(&known.record, session) {
        core.stale_reports += 1;
        return Answer::Rejected(rejection);
    }
    heard(core, now, &worker, batch);
    take_changes(core, now, &worker, current, &changes, batch);
    if let Some(full) = full {
        take_full(core, now, &worker, current, &full.held, batch);
        hello::take_health(core, &worker, full.degraded, batch);
    }
    if session.is_some() {
        Core::send(batch, &worker, current, Order::Acknowledge { sequence });
    }
    Answer::Reported
}

/// Whether a report is of the process that the worker is now. Only a unary worker has no session:
/// from the name of one that has, it is the word of another process.
fn check_claim(record: &WorkerRecord, session: Option<Session>) -> Result<(), Rejection> {
    match (session, record.kind) {
        (Some(claimed), _) => hello::check_session(&record.id, record.session, claimed),
        (None, WorkerKind::Unary) => Ok(()),
        (None, WorkerKind::Session) => Err(Rejection::NotRegistered(record.id.clone())),
    }
}

/// Takes each report of an attempt for itself.
pub(crate) fn take_changes(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    session: Session,
    changes: &[AttemptReport],
    batch: &mut Batch,
) {
    for change in changes {
        if is_current(core, change.attempt, worker, session) {
            take_current(core, now, worker, session, change, batch);
        } else {
            answer_stale(core, worker, session, change, batch);
        }
    }
}

/// The fence: all four numbers must be those of now.
pub(crate) fn is_current(
    core: &Core,
    attempt: AttemptId,
    worker: &WorkerId,
    session: Session,
) -> bool {
    let Some(live) = core.facts.find_live(attempt.task) else { return false };
    live.attempt == attempt.no
        && live.find_hold().is_some_and(|hold| hold.worker == *worker && hold.session == session)
}

fn answer_stale(
    core: &mut Core,
    worker: &WorkerId,
    session: Session,
    change: &AttemptReport,
    batch: &mut Batch,
) {
    core.stale_reports += 1;
    let attempt = change.attempt;
    let order = match change.what {
        ReportWhat::Ended { .. } => Order::Forget { attempt },
        _ => Order::Stop { attempt, reason: StopReason::Stale },
    };
    Core::send(batch, worker, session, order);
}

fn take_current(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    session: Session,
    change: &AttemptReport,
    batch: &mut Batch,
) {
    let attempt = change.attempt;
    if let Some(liveness) = core.liveness.get_mut(worker) {
        liveness.missed.remove(&attempt);
        if matches!(change.what, ReportWhat::Started(_)) {
            liveness.heard_running.entry(attempt).or_insert(now.mono);
        }
    }
    let live = core.facts.find_live(attempt.task).expect("the fence let it through");
    let (assigned, cancel) = (matches!(live.state, LiveState::Assigned(_)), live.cancel_requested);
    match &change.what {
        ReportWhat::Ended { started_at, outcome, at } => {
            // The word of the start may have been lost, or left out because the end was near.
            if let (true, Some(at)) = (assigned, *started_at) {
                core.record(batch, Event::AttemptStarted { attempt, at });
            }
            finish::end(core, now, attempt, outcome, *at, batch);
            Core::send(batch, worker, session, Order::Forget { attempt });
            return;
        }
        ReportWhat::Started(at) if assigned => {
            core.record(batch, Event::AttemptStarted { attempt, at: *at });
            watch_trial(core, now, worker, attempt);
            batch.effects.push(Effect::TaskChanged(attempt.task));
        }
        ReportWhat::Started(_) | ReportWhat::Accepted => {}
    }
    if cancel {
        let order = Order::Stop { attempt, reason: StopReason::Cancelled };
        Core::send(batch, worker, session, order);
    }
}

/// A trial that has run for a while speaks for its worker: nobody waits for its end.
fn watch_trial(core: &mut Core, now: Now, worker: &WorkerId, attempt: AttemptId) {
    if core.liveness.get(worker).is_some_and(|liveness| liveness.breaker.is_trial(attempt)) {
        let at = now.mono.plus_ms(bounds::QUICK_EXIT_MS);
        core.alarms.set(at, Alarm::Trial(worker.clone(), attempt));
    }
}

/// Compares everything that a worker holds with everything that it should hold.
pub(crate) fn take_full(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    session: Session,
    held: &[AttemptReport],
    batch: &mut Batch,
) {
    take_changes(core, now, worker, session, held, batch);
    let named: BTreeSet<AttemptId> = held.iter().map(|report| report.attempt).collect();
    let mut missing = hello::held_by(core, worker);
    missing.retain(|attempt| !named.contains(attempt));
    if let Some(liveness) = core.liveness.get_mut(worker) {
        liveness.missed.retain(|attempt, _| missing.binary_search(attempt).is_ok());
    }
    for attempt in missing {
        take_missing(core, now, worker, session, attempt, batch);
    }
}

/// An attempt that the worker should hold and does not name.
fn take_missing(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    session: Session,
    attempt: AttemptId,
    batch: &mut Batch,
) {
    let live = core.facts.find_live(attempt.task).expect("a held task is live");
    let (assigned, cancel) = (matches!(live.state, LiveState::Assigned(_)), live.cancel_requested);
    let missed = count_missed(core, now, worker, attempt);
    let untaken_ms = now.mono.ms_since(missed.since);
    if assigned && !cancel && untaken_ms < bounds::UNTAKEN_MS_MAX {
        let spec = Arc::clone(&core.facts.jobs[&attempt.task.job].spec);
        Core::send(batch, worker, session, Order::Assign { attempt, spec });
        set_given(core, now, worker, attempt);
    } else if assigned {
        // The last assign may be on its way still: it is taken back before its room is sold.
        let is_quiet = now.mono.ms_since(missed.given_at) >= bounds::UNTAKEN_QUIET_MS;
        let reason = if cancel && !is_quiet { StopReason::Cancelled } else { StopReason::Stale };
        if is_quiet {
            lose_untaken(core, now, attempt, cancel, batch);
        }
        Core::send(batch, worker, session, Order::Stop { attempt, reason });
    } else if missed.reports >= reports_max(core, worker) {
        let message = "its worker does not have it any more";
        finish::lose(core, now, attempt, LossCause::WorkerLost, message, batch);
    }
}

fn lose_untaken(core: &mut Core, now: Now, attempt: AttemptId, cancel: bool, batch: &mut Batch) {
    // A cancel says nothing of the worker, however long its stop took.
    let (cause, message) = if cancel {
        (LossCause::WorkerLost, "cancelled before it reached its worker")
    } else {
        (LossCause::Infra, "its worker does not take it, however often it is given")
    };
    finish::lose(core, now, attempt, cause, message, batch);
}

fn set_given(core: &mut Core, now: Now, worker: &WorkerId, attempt: AttemptId) {
    let liveness = core.liveness.get_mut(worker);
    if let Some(missed) = liveness.and_then(|liveness| liveness.missed.get_mut(&attempt)) {
        missed.given_at = now.mono;
    }
}

fn count_missed(core: &mut Core, now: Now, worker: &WorkerId, attempt: AttemptId) -> Missed {
    let liveness = core.liveness.entry(worker.clone()).or_default();
    let first = Missed { since: now.mono, reports: 0, given_at: now.mono };
    let missed = liveness.missed.entry(attempt).or_insert(first);
    missed.reports = missed.reports.saturating_add(1);
    *missed
}

/// A unary worker drops an ended task from its heartbeats before its completion arrives: it is
/// given some heartbeats' time.
fn reports_max(core: &Core, worker: &WorkerId) -> u8 {
    match core.facts.workers[worker].record.kind {
        WorkerKind::Session => 1,
        WorkerKind::Unary => bounds::MISSED_REPORTS_MAX,
    }
}

/// A unary worker said no to an attempt. Its word counts only for one that was given once and has
/// not begun: the no to the second of two assigns says nothing of the first, and what comes of that
/// the heartbeats tell.
pub(crate) fn declined(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    attempt: AttemptId,
    message: &str,
    batch: &mut Batch,
) -> Answer {
    let Some(known) = core.facts.workers.get(worker) else {
        return Answer::Rejected(Rejection::NotRegistered(worker.clone()));
    };
    let session = known.record.session;
    if let Err(rejection) = check_claim(&known.record, None) {
        core.stale_reports += 1;
        return Answer::Rejected(rejection);
    }
    if is_current(core, attempt, worker, session) && was_given_once(core, worker, attempt) {
        finish::lose(core, now, attempt, LossCause::Infra, message, batch);
    }
    Answer::Reported
}

/// Whether a worker was given an attempt once, and has not begun it.
fn was_given_once(core: &Core, worker: &WorkerId, attempt: AttemptId) -> bool {
    let live = core.facts.find_live(attempt.task);
    let assigned = live.is_some_and(|live| matches!(live.state, LiveState::Assigned(_)));
    let given_again =
        core.liveness.get(worker).is_some_and(|liveness| liveness.missed.contains_key(&attempt));
    assigned && !given_again
}
