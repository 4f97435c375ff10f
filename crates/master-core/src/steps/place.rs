//! A task is given to a worker: one check for every proposal, whoever made it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudai_model::{AttemptId, AttemptNo, Event, Hold, Now, Resources, Session, TaskId, TaskSpec};
use cloudai_scheduler::{Plan, Problem, Shape, Share, refusal_of};

use crate::batch::{Batch, Effect, Order};
use crate::command::{Answer, Placement, Refused};
use crate::core::{Core, bounds};
use crate::liveness::Alarm;

/// Room that a plan has for tasks which were lost there last.
struct Spared {
    line: u64,
    /// Index into [`Problem::demands`].
    demand: usize,
    /// Index into [`Problem::offers`].
    offer: usize,
    count: u64,
}

/// See [`Core::apply_plan`]. A share is of a shape; which tasks of the shape it gets is decided
/// here: the first ones in the queue, but for those that were lost on that worker last.
pub(crate) fn apply_plan(
    core: &mut Core,
    now: Now,
    problem: &Problem,
    plan: &Plan,
    batch: &mut Batch,
) {
    let lines = core.facts.queue.ready_lines();
    let numbers: Vec<u64> = lines.into_iter().map(|(number, _)| number).collect();
    let mut left = bounds::PLACEMENTS_PER_PLAN_MAX;
    let mut spared: Vec<Spared> = Vec::new();
    for Share { demand, offer, count } in plan.shares.iter().copied() {
        let (Some(line), Some(to)) = (numbers.get(demand), problem.offers.get(offer)) else {
            continue;
        };
        let count = count.min(left);
        let mut tasks = first_of(core, *line, count);
        let found = tasks.len();
        tasks.retain(|task| core.lost_on.get(task) != Some(&to.worker));
        let rest = (found - tasks.len()) as u64;
        left -= rest;
        spared.push(Spared { line: *line, demand, offer, count: rest });
        for task in tasks {
            let placement = Placement { task, worker: to.worker.clone() };
            left -= u64::from(place(core, now, &placement, batch).is_ok());
        }
    }
    let freed = place_spared(core, now, problem, &spared, batch);
    // What the bound cut off, or now fits where the plan had no room, is placed by the next plan.
    if left == 0 || freed {
        core.plan_wanted = true;
        core.alarms.set(now.mono, Alarm::Plan);
    }
}

/// Places what a plan has room for only where it was lost last: each task on the first other worker
/// that has room beside the plan, and else where the plan has it, so that nothing waits for it.
/// Whether any went elsewhere.
fn place_spared(
    core: &mut Core,
    now: Now,
    problem: &Problem,
    spared: &[Spared],
    batch: &mut Batch,
) -> bool {
    let mut freed = false;
    let mut kept: BTreeMap<usize, (Resources, u64)> = BTreeMap::new();
    for Spared { demand, offer, count, .. } in spared {
        let needs = problem.demands[*demand].shape.needs.checked_mul(*count);
        let (sum, slots) = kept.entry(*offer).or_default();
        *sum =
            needs.and_then(|needs| sum.checked_add(needs)).unwrap_or(problem.offers[*offer].free);
        *slots += count;
    }
    for Spared { line, demand, offer, count } in spared {
        let shape = &problem.demands[*demand].shape;
        // Room only gets less: who refuses one task of the shape refuses the next one.
        let mut other = 0;
        for task in first_of(core, *line, *count) {
            let planned = &problem.offers[*offer].worker;
            let mut to = planned;
            if core.lost_on.get(&task) == Some(planned) {
                let has_room =
                    |at: usize| at != *offer && has_room(core, problem, shape, at, &kept);
                other =
                    (other..problem.offers.len()).find(|at| has_room(*at)).unwrap_or(usize::MAX);
                to = problem.offers.get(other).map_or(planned, |other| &other.worker);
            }
            freed |= to != planned;
            let placement = Placement { task, worker: to.clone() };
            // Room was looked at just now, or kept.
            drop(place(core, now, &placement, batch));
            let (sum, slots) = kept.get_mut(offer).expect("each that was spared is kept");
            *sum = sum.saturating_sub(shape.needs);
            *slots = slots.saturating_sub(1);
        }
    }
    freed
}

/// Whether a worker takes one task of a shape beside what is kept there.
fn has_room(
    core: &Core,
    problem: &Problem,
    shape: &Shape,
    at: usize,
    kept: &BTreeMap<usize, (Resources, u64)>,
) -> bool {
    let Some(known) = core.facts.workers.get(&problem.offers[at].worker) else { return false };
    let mut offer = core.offer_of(known);
    if let Some((needs, slots)) = kept.get(&at) {
        offer.free = offer.free.saturating_sub(*needs);
        offer.slots = offer.slots.saturating_sub(*slots);
    }
    refusal_of(shape, &offer).is_none()
}

/// The first tasks of a line, in queue order.
fn first_of(core: &Core, line: u64, count: u64) -> Vec<TaskId> {
    let first = core.facts.queue.first_of(line, count, &core.facts.jobs);
    first
        .iter()
        .map(|(job, position)| core.facts.jobs[job].shape.task_id(*job, *position))
        .collect()
}

/// Checks one placement against the present, and makes it true.
fn place(
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
    core.lost_on.remove(task);
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
