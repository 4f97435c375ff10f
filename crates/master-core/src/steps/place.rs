//! A task is given to a worker: one check for every proposal, whoever made it.

use std::sync::Arc;

use cloudai_model::{AttemptId, AttemptNo, Event, Hold, Now, Session, TaskSpec};
use cloudai_scheduler::{Shape, refusal_of};

use crate::batch::{Batch, Effect, Order};
use crate::command::{Answer, Placement, Refused};
use crate::core::Core;
use crate::liveness::Alarm;

/// Checks one placement against the present, and makes it true.
pub(crate) fn place(
    core: &mut Core,
    now: Now,
    placement: &Placement,
    batch: &mut Batch,
) -> Result<(), String> {
    let Placement { task, worker } = placement;
    let no = next_attempt(core, placement)?;
    let (spec, session) = check_fit(core, placement)?;
    let attempt = AttemptId { task: *task, no };
    let hold = Hold { worker: worker.clone(), session, placed_at: now.wall };
    core.record(batch, Event::AttemptPlaced { attempt, hold });
    if let Some(liveness) = core.liveness.get_mut(worker)
        && let Some(until) = liveness.breaker.placed(now.mono, attempt)
    {
        core.alarms.set(until, Alarm::Breaker(worker.clone()));
    }
    Core::send(batch, worker, session, Order::Assign { attempt, spec });
    batch.effects.push(Effect::TaskChanged(*task));
    Ok(())
}

/// The number of the try that would begin now; an error when the task is not waiting.
fn next_attempt(core: &Core, placement: &Placement) -> Result<AttemptNo, String> {
    let task = placement.task;
    let job = core.facts.jobs.get(&task.job);
    let position = job.and_then(|job| job.shape.find_position(task));
    let (Some(job), Some(position)) = (job, position) else {
        return Err(format!("{task} is not waiting: it has ended or never was"));
    };
    if core.facts.queue.is_ready(job, position) {
        let next = job.live.get(&position).map_or(AttemptNo::FIRST, |live| live.attempt);
        return Ok(core.facts.numbers.attempt_no(next));
    }
    Err(match job.live.get(&position).and_then(|live| live.find_hold()) {
        Some(hold) => format!("{task} is already on worker '{}'", hold.worker),
        None if core.facts.queue.is_delayed(task.job, position) => {
            format!("{task} waits before it is tried again")
        }
        None => format!("{} has as many tasks at once as it may", task.job),
    })
}

/// What to send, and under which registration; an error when the worker cannot take it now.
fn check_fit(core: &Core, placement: &Placement) -> Result<(Arc<TaskSpec>, Session), String> {
    let Placement { task, worker } = placement;
    let Some(known) = core.facts.workers.get(worker) else {
        return Err(format!("worker '{worker}' not found"));
    };
    let spec = &core.facts.jobs[&task.job].spec;
    match refusal_of(&Shape::of(spec), &core.offer_of(known)) {
        None => Ok((Arc::clone(spec), known.record.session)),
        Some(refusal) => Err(format!("{task} does not fit worker '{worker}': {refusal}")),
    }
}

/// An agent's proposals: each is checked for itself; a repeated one is a no-op.
pub(crate) fn propose(
    core: &mut Core,
    now: Now,
    placements: Vec<Placement>,
    batch: &mut Batch,
) -> Answer {
    let mut refused = Vec::new();
    let mut accepted = 0;
    for placement in placements {
        let holder = core.facts.find_live(placement.task).and_then(|live| live.find_hold());
        let repeated = holder.is_some_and(|hold| hold.worker == placement.worker);
        if repeated {
            accepted += 1;
            continue;
        }
        match place(core, now, &placement, batch) {
            Ok(()) => accepted += 1,
            Err(why) => refused.push(Refused { placement, why }),
        }
    }
    Answer::Proposed { accepted, refused }
}
