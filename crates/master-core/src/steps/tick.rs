//! Time passed: silent workers become inactive, leases end, backoffs are over.

use cloudai_model::{LossCause, Monotonic, Now, TaskId, WorkerId};

use crate::batch::Batch;
use crate::breaker::Verdict;
use crate::core::{Core, bounds};
use crate::liveness::Alarm;
use crate::steps::finish;
use crate::steps::hello::held_by;

pub(crate) fn tick(core: &mut Core, now: Now, batch: &mut Batch) {
    while let Some(alarm) = core.alarms.pop(now.mono) {
        match alarm {
            Alarm::Plan => core.plan_wanted = true,
            Alarm::Backoff(task) => backoff_over(core, task),
            Alarm::Breaker(worker) => try_worker(core, now, &worker),
            Alarm::Trial(worker, attempt) => {
                finish::speak(core, now, &worker, attempt, Verdict::Works, "", batch);
            }
            Alarm::Worker(worker) => look_at_worker(core, now, worker, batch),
        }
    }
}

fn backoff_over(core: &mut Core, task: TaskId) {
    if let Some(job) = core.facts.jobs.get(&task.job)
        && job.live.contains_key(&task.position())
    {
        core.facts.queue.release(job, task.position());
        core.plan_wanted = true;
    }
}

fn try_worker(core: &mut Core, now: Now, worker: &WorkerId) {
    if let Some(liveness) = core.liveness.get_mut(worker)
        && liveness.breaker.tick(now.mono)
    {
        core.plan_wanted = true;
    }
}

/// Sets the worker inactive, takes away what its leases have given up, and sets the next alarm.
fn look_at_worker(core: &mut Core, now: Now, worker: WorkerId, batch: &mut Batch) {
    let Some(liveness) = core.liveness.get_mut(&worker) else { return };
    let heard_at = liveness.heard_at;
    let silent_at = heard_at.plus_ms(bounds::INACTIVE_AFTER_MS);
    if liveness.active {
        if now.mono < silent_at {
            core.alarms.set(silent_at, Alarm::Worker(worker));
            return;
        }
        liveness.active = false;
        // One that was put aside for its sake may be the last that there is.
        core.plan_wanted = true;
        core.tell_standing(&worker, batch);
    }
    let mut next: Option<Monotonic> = None;
    for attempt in held_by(core, &worker) {
        let lease_ms = core.facts.jobs[&attempt.task.job].spec.retry.lease_ms;
        let lease_over = heard_at.plus_ms(lease_ms).plus_ms(bounds::lease_margin_ms(lease_ms));
        if lease_over <= now.mono {
            let message = "its worker was not heard for as long as its lease";
            finish::lose(core, now, attempt, LossCause::WorkerLost, message, batch);
        } else {
            next = Some(next.map_or(lease_over, |next| next.min(lease_over)));
        }
    }
    if let Some(next) = next {
        core.alarms.set(next, Alarm::Worker(worker));
    }
}
