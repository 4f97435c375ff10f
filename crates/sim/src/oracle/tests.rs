//! The judge's own bounds: what is allowed up to them, and nothing beyond.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_master_core::bounds;
use cloudai_model::{
    AttemptId, AttemptNo, Cause, Event, Hold, JobId, JobShape, LossCause, Outcome, RetryPolicy,
    Session, TaskId, TaskSpec, Timestamp, WorkerId, WorkerKind, WorkerRecord,
};

use super::reference::Reference;

const AT: Timestamp = Timestamp(1);

fn worker() -> WorkerId {
    WorkerId::new("worker-1").unwrap()
}

fn attempt(no: u32) -> AttemptId {
    AttemptId { task: TaskId::single(1), no: AttemptNo(no) }
}

/// A history in which a task with these budgets waits.
fn history() -> Reference {
    let capacity = TaskSpec::DEFAULT_NEEDS;
    let mut reference = Reference::new(BTreeMap::from([(worker(), capacity)]));
    let record = WorkerRecord {
        id: worker(),
        session: Session(1),
        kind: WorkerKind::Session,
        address: String::new(),
        capacity,
        volumes: BTreeSet::new(),
        version: String::new(),
        registered_at: AT,
    };
    let mut spec = TaskSpec::new("busybox", capacity);
    spec.retry = RetryPolicy { retries_max: 1, crashes_max: 2, ..RetryPolicy::default() };
    let (job, shape, request) = (JobId(1), JobShape::Single, None);
    for event in [
        Event::WorkerRegistered { worker: record },
        Event::JobSubmitted { job, spec: Arc::new(spec), shape, request, at: AT },
    ] {
        reference.apply(&event).unwrap();
    }
    reference
}

/// The task is placed, starts or not, and is over in this way.
fn try_once(reference: &mut Reference, no: u32, starts: bool, over: &Event) -> Result<(), String> {
    let hold = Hold { worker: worker(), session: Session(1), placed_at: AT };
    reference.apply(&Event::AttemptPlaced { attempt: attempt(no), hold }).unwrap();
    if starts {
        reference.apply(&Event::AttemptStarted { attempt: attempt(no), at: AT }).unwrap();
    }
    reference.apply(over)
}

fn lost(no: u32, cause: LossCause) -> Event {
    Event::AttemptLost { attempt: attempt(no), cause, message: String::new(), at: AT }
}

fn finished(no: u32, cause: Cause) -> Event {
    let outcome = Outcome::new(cause, "");
    Event::TaskFinished { attempt: attempt(no), outcome, finished_at: AT, at: AT }
}

/// A task is tried again after `most` losses of this kind and not after one more; it ends of them
/// when they are used up and not before.
fn check(most: u32, starts: bool, loss: LossCause, end: Cause) {
    let spent = |losses: u32| {
        let mut reference = history();
        for no in 1..=losses {
            try_once(&mut reference, no, starts, &lost(no, loss)).unwrap();
        }
        reference
    };
    let again = try_once(&mut spent(most), most + 1, starts, &lost(most + 1, loss));
    assert!(again.unwrap_err().starts_with("a budget that is used up ends its task"), "{loss:?}");
    try_once(&mut spent(most), most + 1, starts, &finished(most + 1, end)).unwrap();
    let early = try_once(&mut spent(most - 1), most, starts, &finished(most, end));
    assert!(early.unwrap_err().starts_with("a budget is used up before it ends"), "{loss:?}");
}

#[test]
fn each_budget_ends_a_task_when_it_is_used_up_and_not_before() {
    check(1, true, LossCause::Failed(Cause::Exit(3)), Cause::Exit(3));
    check(2, true, LossCause::WorkerLost, Cause::WorkerLost);
    check(bounds::INFRA_LOSSES_MAX, true, LossCause::Infra, Cause::Infra);
    check(bounds::INFRA_LOSSES_MAX, false, LossCause::Infra, Cause::Infra);
    check(bounds::INFRA_LOSSES_MAX, false, LossCause::WorkerLost, Cause::WorkerLost);
}

#[test]
fn what_counts_against_nothing_ends_nothing() {
    let mut reference = history();
    for no in 1..=bounds::INFRA_LOSSES_MAX + 9 {
        try_once(&mut reference, no, true, &lost(no, LossCause::WorkerStopped)).unwrap();
    }
}
