//! A client wants tasks not to run. What waits ends at once; what a worker holds is asked to stop
//! and ends when the worker says so.

use cloudai_model::{AttemptId, Cause, Event, JobId, LiveState, Now, Outcome, StopReason, TaskId};

use crate::batch::{Batch, Effect, Order};
use crate::command::{Answer, CancelTarget, Rejection};
use crate::core::Core;
use crate::steps::finish;

pub(crate) fn cancel(core: &mut Core, now: Now, target: CancelTarget, batch: &mut Batch) -> Answer {
    let mut sum = Sum::default();
    let found = match target {
        CancelTarget::Task(task) => cancel_task(core, now, task, &mut sum, batch),
        CancelTarget::Job(job) => cancel_job(core, now, job, &mut sum, batch),
    };
    if found.is_none() {
        return Answer::Rejected(Rejection::NotLive);
    }
    core.plan_wanted = true;
    Answer::Cancelled { ended: sum.ended, stopping: sum.stopping }
}

#[derive(Default)]
struct Sum {
    ended: u64,
    stopping: u64,
}

fn cancel_job(
    core: &mut Core,
    now: Now,
    id: JobId,
    sum: &mut Sum,
    batch: &mut Batch,
) -> Option<()> {
    let job = core.facts.jobs.get(&id)?;
    let live: Vec<TaskId> =
        job.live.keys().map(|position| job.shape.task_id(id, *position)).collect();
    cancel_fresh(core, now, id, job.shape.span(), sum, batch);
    for task in live {
        cancel_task(core, now, task, sum, batch);
    }
    Some(())
}

fn cancel_task(
    core: &mut Core,
    now: Now,
    task: TaskId,
    sum: &mut Sum,
    batch: &mut Batch,
) -> Option<()> {
    let job = core.facts.jobs.get(&task.job)?;
    let position = job.shape.find_position(task)?;
    if job.fresh.contains(position) {
        cancel_fresh(core, now, task.job, (position, position), sum, batch);
        return Some(());
    }
    let live = job.live.get(&position)?;
    let attempt = AttemptId { task, no: live.attempt };
    match &live.state {
        LiveState::Queued(_) => {
            let outcome = Outcome::new(Cause::Cancelled, "");
            finish::finish(core, now, attempt, outcome, now.wall, batch);
            sum.ended += 1;
        }
        LiveState::Assigned(hold) | LiveState::Running { hold, .. } => {
            let hold = hold.clone();
            if !live.cancel_requested {
                core.record(batch, Event::CancelRequested { task, at: now.wall });
            }
            let order = Order::Stop { attempt, reason: StopReason::Cancelled };
            Core::send(batch, &hold.worker, hold.session, order);
            batch.effects.push(Effect::TaskChanged(task));
            sum.stopping += 1;
        }
    }
    Some(())
}

fn cancel_fresh(
    core: &mut Core,
    now: Now,
    id: JobId,
    (first, last): (u32, u32),
    sum: &mut Sum,
    batch: &mut Batch,
) {
    let job = &core.facts.jobs[&id];
    let inside = job.fresh.spans().map(|(low, high)| {
        let (low, high) = (low.max(first), high.min(last));
        if low > high { 0 } else { u64::from(high - low) + 1 }
    });
    let count: u64 = inside.sum();
    if count == 0 {
        return;
    }
    sum.ended += count;
    core.record(batch, Event::FreshCancelled { job: id, first, last, at: now.wall });
    batch.effects.push(Effect::JobChanged(id));
}
