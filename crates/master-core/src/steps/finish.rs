//! An attempt is over: the task ends, or it is tried again.

use cloudai_model::{AttemptId, Cause, Event, LossCause, Now, Outcome, Timestamp, WorkerId};

use crate::batch::{Batch, Effect};
use crate::core::{Core, bounds};
use crate::liveness::Alarm;

/// The worker says how the current attempt ended. Cancel wins; losses and the user's retries have
/// budgets of their own.
pub(crate) fn end(
    core: &mut Core,
    now: Now,
    attempt: AttemptId,
    outcome: &Outcome,
    finished_at: Timestamp,
    batch: &mut Batch,
) {
    let live = core.facts.find_live(attempt.task).expect("only a current attempt ends");
    let retries_max = core.facts.jobs[&attempt.task.job].spec.retry.retries_max;
    let (cancelled, failures) = (live.cancel_requested, live.failures);
    if cancelled {
        let outcome = Outcome::new(Cause::Cancelled, outcome.message.clone());
        finish(core, now, attempt, outcome, finished_at, batch);
        return;
    }
    match outcome.cause {
        // Nobody here asked for it: somebody stopped the container on the worker.
        Cause::Cancelled | Cause::WorkerLost => {
            lose(core, now, attempt, LossCause::WorkerLost, &outcome.message, batch);
        }
        Cause::Infra => lose(core, now, attempt, LossCause::Infra, &outcome.message, batch),
        cause if !cause.is_success() && failures < retries_max => {
            try_again(core, now, attempt, LossCause::Failed(cause), &outcome.message, batch);
        }
        _ => finish(core, now, attempt, outcome.clone(), finished_at, batch),
    }
}

/// The current attempt is gone without an outcome of the task's own.
pub(crate) fn lose(
    core: &mut Core,
    now: Now,
    attempt: AttemptId,
    cause: LossCause,
    message: &str,
    batch: &mut Batch,
) {
    let live = core.facts.find_live(attempt.task).expect("only a current attempt is lost");
    let last = live.losses >= bounds::LOSSES_MAX;
    let outcome = match cause {
        _ if live.cancel_requested => Some(Cause::Cancelled),
        LossCause::WorkerLost if last => Some(Cause::WorkerLost),
        LossCause::Infra if last => Some(Cause::Infra),
        _ => None,
    };
    match outcome {
        Some(cause) => {
            let outcome = Outcome::new(cause, message);
            finish(core, now, attempt, outcome, now.wall, batch);
        }
        None => try_again(core, now, attempt, cause, message, batch),
    }
}

/// The task ends, with this attempt as its last.
pub(crate) fn finish(
    core: &mut Core,
    now: Now,
    attempt: AttemptId,
    outcome: Outcome,
    finished_at: Timestamp,
    batch: &mut Batch,
) {
    let worker = holder(core, attempt);
    let told = Effect::TaskEnded { attempt, worker, outcome: outcome.clone() };
    let event = Event::TaskFinished { attempt, outcome, finished_at, at: now.wall };
    core.record(batch, event);
    core.plan_wanted = true;
    batch.effects.push(told);
}

fn try_again(
    core: &mut Core,
    now: Now,
    attempt: AttemptId,
    cause: LossCause,
    message: &str,
    batch: &mut Batch,
) {
    let message = Outcome::new(Cause::Infra, message).message;
    let worker = holder(core, attempt);
    let told = Effect::AttemptLost { attempt, worker, cause, message: message.clone() };
    core.record(batch, Event::AttemptLost { attempt, cause, message, at: now.wall });
    // A lost worker is no fault of the task: its next try need not wait.
    if cause != LossCause::WorkerLost {
        let live = core.facts.find_live(attempt.task).expect("a lost attempt's task is live");
        let tries = live.failures + live.losses;
        let wait_ms = bounds::BACKOFF_MS_MIN << tries.saturating_sub(1).min(16);
        let at = now.mono.plus_ms(wait_ms.min(bounds::BACKOFF_MS_MAX));
        let job = &core.facts.jobs[&attempt.task.job];
        core.facts.queue.delay(job, attempt.task.position());
        core.alarms.set(at, Alarm::Backoff(attempt.task));
    }
    core.plan_wanted = true;
    batch.effects.push(told);
}

fn holder(core: &Core, attempt: AttemptId) -> Option<WorkerId> {
    let hold = core.facts.find_live(attempt.task)?.find_hold()?;
    Some(hold.worker.clone())
}
