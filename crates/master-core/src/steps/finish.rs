//! An attempt is over: the task ends, or it is tried again.

use cloudai_model::{
    AttemptId, Budget, Cause, Event, LiveState, LiveTask, LossCause, Now, Outcome, Timestamp,
    WorkerId,
};

use crate::batch::{Batch, Effect};
use crate::breaker::{Turned, Verdict};
use crate::core::{Core, bounds};
use crate::liveness::Alarm;

/// The worker says how the current attempt ended. Cancel wins; each kind of loss has a budget of
/// its own, and so have the user's retries.
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
    let (cancelled, failures) = (live.cancel_requested, live.spent.failures);
    if cancelled {
        let outcome = Outcome::new(Cause::Cancelled, outcome.message.clone());
        finish(core, now, attempt, outcome, finished_at, batch);
        return;
    }
    judge(core, now, attempt, outcome, finished_at, batch);
    match outcome.cause {
        // The worker goes in good order.
        Cause::WorkerLost => {
            give_up(core, now, attempt, LossCause::WorkerStopped, &outcome.message, batch);
        }
        // Nobody asked for it: its lease ended there, or somebody stopped the container.
        Cause::Cancelled => {
            give_up(core, now, attempt, LossCause::WorkerLost, &outcome.message, batch);
        }
        Cause::Infra => give_up(core, now, attempt, LossCause::Infra, &outcome.message, batch),
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
    if cause == LossCause::Infra {
        let outcome = Outcome::new(Cause::Infra, message);
        judge(core, now, attempt, &outcome, now.wall, batch);
    }
    give_up(core, now, attempt, cause, message, batch);
}

/// The task ends when its budget is used up, and else is tried again.
fn give_up(
    core: &mut Core,
    now: Now,
    attempt: AttemptId,
    cause: LossCause,
    message: &str,
    batch: &mut Batch,
) {
    let live = core.facts.find_live(attempt.task).expect("only a current attempt is lost");
    let outcome = if live.cancel_requested {
        Some(Outcome::new(Cause::Cancelled, message))
    } else {
        used_up(core, attempt, live, cause, message)
    };
    match outcome {
        Some(outcome) => finish(core, now, attempt, outcome, now.wall, batch),
        None => try_again(core, now, attempt, cause, message, batch),
    }
}

/// What the end of an attempt says of the worker that still holds it.
fn judge(
    core: &mut Core,
    now: Now,
    attempt: AttemptId,
    outcome: &Outcome,
    finished_at: Timestamp,
    batch: &mut Batch,
) {
    let live = core.facts.find_live(attempt.task).expect("only a current attempt ends");
    let (hold, began_at) = match &live.state {
        LiveState::Queued(_) => return,
        // A unary worker may be done before its first heartbeat.
        LiveState::Assigned(hold) => (hold, hold.placed_at),
        LiveState::Running { hold, started_at } => (hold, *started_at),
    };
    let ran_ms = finished_at.ms_since(began_at);
    let verdict = match outcome.cause {
        Cause::Exit(0) => Verdict::Works,
        Cause::Infra => Verdict::Infra,
        Cause::Exit(_) | Cause::Oom | Cause::Timeout if ran_ms >= bounds::QUICK_EXIT_MS => {
            Verdict::Works
        }
        Cause::Exit(_) if is_believed(core, now, &hold.worker, attempt, ran_ms) => {
            Verdict::QuickExit(attempt.task.job)
        }
        _ => Verdict::Silent,
    };
    let worker = hold.worker.clone();
    let words = format!("{attempt} ended with {}: {}", outcome.cause, outcome.message);
    speak(core, now, &worker, attempt, verdict, words.trim_end_matches(": "), batch);
}

/// Whether an attempt can have run for as short as wall clocks say, which may go back meanwhile.
fn is_believed(core: &Core, now: Now, worker: &WorkerId, attempt: AttemptId, ran_ms: u64) -> bool {
    let heard = core.liveness.get(worker).and_then(|known| known.heard_running.get(&attempt));
    let heard_ms = heard.map_or(0, |since| now.mono.ms_since(*since));
    heard_ms <= ran_ms + bounds::QUICK_EXIT_DOUBT_MS
}

/// An attempt says something of its worker.
pub(crate) fn speak(
    core: &mut Core,
    now: Now,
    worker: &WorkerId,
    attempt: AttemptId,
    verdict: Verdict,
    words: &str,
    batch: &mut Batch,
) {
    let Some(liveness) = core.liveness.get_mut(worker) else { return };
    let turned = liveness.breaker.ended(now.mono, attempt, verdict, words);
    let Some(turned) = turned else { return };
    core.plan_wanted = true;
    if let Turned::Aside(until) = turned {
        core.alarms.set(until, Alarm::Breaker(worker.clone()));
    }
    core.tell_standing(worker, batch);
}

/// The task's end, when this loss is one more than its budget has.
fn used_up(
    core: &Core,
    attempt: AttemptId,
    live: &LiveTask,
    cause: LossCause,
    message: &str,
) -> Option<Outcome> {
    let budget = live.budget_of(cause)?;
    let count = u64::from(live.spent.of(budget)) + 1;
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let (max, words) = match budget {
        Budget::Retries => return None,
        Budget::Crashes => {
            let max = core.facts.jobs[&attempt.task.job].spec.retry.crashes_max;
            let words = format!(
                "its worker was lost {times} while it ran, which is more than the {max} that the \
                 job allows (crashes_max)"
            );
            (max, words)
        }
        Budget::Infra => {
            let max = bounds::INFRA_LOSSES_MAX;
            let words = format!(
                "it was lost {times} to engines, disks, or workers before it started, which is \
                 more than the {max} that are allowed"
            );
            (max, words)
        }
    };
    let cause = if cause == LossCause::Infra { Cause::Infra } else { Cause::WorkerLost };
    (count > u64::from(max)).then(|| Outcome::new(cause, format!("{words}; last: {message}")))
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
    let worker = let_go(core, attempt);
    core.lost_on.remove(&attempt.task);
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
    let worker = let_go(core, attempt);
    let live = core.facts.find_live(attempt.task).expect("only a current attempt is lost");
    let wait_ms = backoff_ms(live, cause, core.facts.numbers.attempt_floor);
    if let (LossCause::Infra | LossCause::WorkerLost, Some(worker)) = (cause, &worker) {
        core.lost_on.insert(attempt.task, worker.clone());
    }
    let told = Effect::AttemptLost { attempt, worker, cause, message: message.clone() };
    core.record(batch, Event::AttemptLost { attempt, cause, message, at: now.wall });
    if wait_ms > 0 {
        let job = &core.facts.jobs[&attempt.task.job];
        core.facts.queue.delay(job, attempt.task.position());
        core.alarms.set(now.mono.plus_ms(wait_ms), Alarm::Backoff(attempt.task));
    }
    core.plan_wanted = true;
    batch.effects.push(told);
}

/// How long the task waits for its next try, when its current one is lost. It doubles with each
/// loss of the same kind; those that count against nothing go by the number of tries, which begins
/// anew above `attempt_floor` when a backup was put back.
fn backoff_ms(live: &LiveTask, cause: LossCause, attempt_floor: u32) -> u64 {
    let nth = match live.budget_of(cause) {
        Some(budget) => live.spent.of(budget).saturating_add(1),
        None => live.attempt.0.saturating_sub(attempt_floor),
    };
    // A lost worker is no fault of the task: its next try need not wait, the first time.
    let free = u32::from(matches!(cause, LossCause::WorkerLost | LossCause::WorkerStopped));
    match nth.saturating_sub(free) {
        0 => 0,
        n => (bounds::BACKOFF_MS_MIN << (n - 1).min(16)).min(bounds::BACKOFF_MS_MAX),
    }
}

/// The worker that held the attempt; nothing of it is kept there, and it is on trial with it no
/// more.
fn let_go(core: &mut Core, attempt: AttemptId) -> Option<WorkerId> {
    let worker = core.facts.find_live(attempt.task)?.find_hold()?.worker.clone();
    if let Some(liveness) = core.liveness.get_mut(&worker) {
        liveness.breaker.gone(attempt);
        liveness.heard_running.remove(&attempt);
    }
    Some(worker)
}
