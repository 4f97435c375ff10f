//! A worker process comes, comes back, or goes in good order.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use cloudai_model::{
    AttemptId, Event, LossCause, Now, Session, TaskId, WorkerId, WorkerKind, WorkerRecord,
};

use crate::batch::{Batch, Effect};
use crate::breaker::Breaker;
use crate::command::{Answer, Rejection, WorkerHello};
use crate::core::{Core, bounds};
use crate::liveness::Alarm;
use crate::steps::{finish, report};

pub(crate) fn hello(core: &mut Core, now: Now, hello: WorkerHello, batch: &mut Batch) -> Answer {
    if is_late(core, &hello) {
        core.stale_reports += 1;
        return Answer::Rejected(Rejection::LateHello(hello.id));
    }
    let (id, stream) = (hello.id.clone(), hello.stream);
    let answer = answer(core, now, hello, batch);
    if let (Answer::Welcome(_), Some(stream)) = (&answer, stream) {
        core.hellos.insert(id, stream);
    }
    answer
}

/// Whether the worker has said hello since: what this one says of attempts is old, and a new
/// session would put the process out that goes on.
///
/// A worker has one process at a time, and that one stream at a time; each lives until it has
/// answered the challenge of its stream. So the one that began later has the stream with the higher
/// number, however long the hello of the other was under way; one of the same stream is the same
/// hello, in a turn that was not stored. This is what the third step of TCP's handshake is for: to
/// tell old openings from new ones (RFC 9293, section 3.5).
fn is_late(core: &Core, hello: &WorkerHello) -> bool {
    let last = core.hellos.get(&hello.id);
    last.zip(hello.stream).is_some_and(|(last, this)| this < *last)
}

fn answer(core: &mut Core, now: Now, hello: WorkerHello, batch: &mut Batch) -> Answer {
    let known = core.facts.workers.get(&hello.id).map(|worker| worker.record.session);
    match (known, hello.session) {
        // A restore came between: what it holds is looked at anew.
        (Some(current), Some(_)) if current.epoch() < core.facts.numbers.epoch() => {
            Answer::Rejected(Rejection::NotRegistered(hello.id))
        }
        (Some(current), Some(claimed)) => match check_session(&hello.id, current, claimed) {
            Ok(()) => {
                come_back(core, now, hello, current, batch);
                Answer::Welcome(current)
            }
            Err(rejection) => Answer::Rejected(rejection),
        },
        (None, Some(_)) => Answer::Rejected(Rejection::NotRegistered(hello.id)),
        (None, None) if core.facts.workers.len() >= core.settings.workers_max => {
            Answer::Rejected(Rejection::TooManyWorkers(core.facts.workers.len()))
        }
        (_, None) => Answer::Welcome(register(core, now, hello, batch)),
    }
}

/// A process with an older session has been replaced and must end; one with a newer session than
/// any that is known here was registered by a history that is lost, and registers anew.
pub(crate) fn check_session(
    worker: &WorkerId,
    current: Session,
    claimed: Session,
) -> Result<(), Rejection> {
    match claimed.cmp(&current) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(Rejection::Superseded(worker.clone())),
        Ordering::Greater => Err(Rejection::NotRegistered(worker.clone())),
    }
}

/// The same process on a new connection.
fn come_back(core: &mut Core, now: Now, hello: WorkerHello, session: Session, batch: &mut Batch) {
    heard(core, now, &hello.id, batch);
    if let Some(held) = &hello.held {
        report::take_full(core, now, &hello.id, session, held, batch);
    }
    take_health(core, &hello.id, hello.degraded, batch);
}

/// A new process: what the old one held and this one does not is gone.
fn register(core: &mut Core, now: Now, hello: WorkerHello, batch: &mut Batch) -> Session {
    let session = Session(core.facts.numbers.last_session + 1);
    let record = WorkerRecord {
        id: hello.id.clone(),
        session,
        kind: hello.kind,
        address: hello.address.clone(),
        capacity: hello.capacity,
        volumes: hello.volumes.clone(),
        version: hello.version.clone(),
        registered_at: now.wall,
    };
    batch.effects.push(Effect::WorkerRegistered(record.clone()));
    core.record(batch, Event::WorkerRegistered { worker: record });
    let named: BTreeSet<AttemptId> =
        hello.held.iter().flatten().map(|report| report.attempt).collect();
    for attempt in held_by(core, &hello.id) {
        // A unary worker cannot say at once what it holds; its next heartbeats do.
        let kept = match &hello.held {
            None => hello.kind == WorkerKind::Unary,
            Some(_) => named.contains(&attempt),
        };
        if kept {
            core.record(batch, Event::AttemptAdopted { attempt, session });
        } else {
            let message = "its worker came back without it";
            finish::lose(core, now, attempt, LossCause::WorkerLost, message, batch);
        }
    }
    trust(core, &hello.id, batch);
    heard(core, now, &hello.id, batch);
    // It may offer more than before, also when it was never seen to be away.
    core.plan_wanted = true;
    if let Some(held) = &hello.held {
        report::take_changes(core, now, &hello.id, session, held, batch);
    }
    take_health(core, &hello.id, hello.degraded, batch);
    session
}

/// A new process begins without the failures of the one before.
fn trust(core: &mut Core, worker: &WorkerId, batch: &mut Batch) {
    let Some(liveness) = core.liveness.get_mut(worker) else { return };
    let was_closed = liveness.breaker.is_closed();
    liveness.breaker = Breaker::default();
    if !was_closed {
        core.tell_standing(worker, batch);
    }
}

/// A worker process ends in good order: what it held runs elsewhere, at once.
pub(crate) fn goodbye(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    session: Session,
    batch: &mut Batch,
) -> Answer {
    let Some(known) = core.facts.workers.get(worker) else {
        return Answer::Rejected(Rejection::NotRegistered(worker.clone()));
    };
    if let Err(rejection) = check_session(worker, known.record.session, session) {
        core.stale_reports += 1;
        return Answer::Rejected(rejection);
    }
    for attempt in held_by(core, worker) {
        let message = "its worker was stopped";
        finish::lose(core, now, attempt, LossCause::WorkerStopped, message, batch);
    }
    if let Some(liveness) = core.liveness.get_mut(worker) {
        liveness.active = false;
        liveness.missed.clear();
    }
    core.plan_wanted = true;
    core.tell_standing(worker, batch);
    Answer::Reported
}

/// The current attempts that a worker holds.
pub(crate) fn held_by(core: &Core, worker: &WorkerId) -> Vec<AttemptId> {
    let Some(worker) = core.facts.workers.get(worker) else { return Vec::new() };
    let attempt = |task: &TaskId| core.find_current(*task).map(|(attempt, _)| attempt);
    worker.held.iter().filter_map(attempt).collect()
}

/// A sign of life: leases run anew, and the worker takes work.
pub(crate) fn heard(core: &mut Core, now: Now, worker: &WorkerId, batch: &mut Batch) {
    let liveness = core.liveness.entry(worker.clone()).or_default();
    liveness.heard_at = now.mono;
    if !liveness.active {
        liveness.active = true;
        core.plan_wanted = true;
        let at = now.mono.plus_ms(bounds::INACTIVE_AFTER_MS);
        core.alarms.set(at, Alarm::Worker(worker.clone()));
        core.tell_standing(worker, batch);
    }
}

/// What the worker says of its own health: one that gets well takes work again at once.
pub(crate) fn take_health(
    core: &mut Core,
    worker: &WorkerId,
    degraded: Option<String>,
    batch: &mut Batch,
) {
    let liveness = core.liveness.entry(worker.clone()).or_default();
    let changed = liveness.degraded.is_some() != degraded.is_some();
    liveness.degraded = degraded;
    if changed {
        core.plan_wanted = true;
        core.tell_standing(worker, batch);
    }
}
