//! What a cancel does to tasks that wait, that run and that have ended.

use cloudai_model::{Cause, JobId};

use super::world::{World, array, ended, spec, started};
use crate::{Answer, CancelTarget, Command, Rejection, bounds};

fn cancelled(ended: u64, stopping: u64) -> Answer {
    Answer::Cancelled { ended, stopping }
}

#[test]
fn what_waits_ends_at_once_and_what_runs_is_stopped() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit(spec(1), array(1, 1_000_000, None));
    let (answer, sent) = world.turn(Command::Cancel(CancelTarget::Job(JobId(1))));
    assert_eq!(answer, cancelled(999_999, 1));
    assert_eq!(sent, "worker-1: stop task-1.1-a1 Cancelled");
    assert_eq!(world.tape.0.len(), 5, "a million cancels are one fact and one wish");
    world.report("worker-1", 1, ended("task-1.1-a1", Cause::Cancelled));
    assert_eq!(world.state("task-1.1"), "cancelled cancelled");
    assert!(world.core.facts().snapshot().jobs.is_empty());
}

#[test]
fn cancel_wins_over_an_exit_that_comes_after_it() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    assert_eq!(world.cancel("1").0, cancelled(0, 1));
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.state("task-1"), "cancelled cancelled");
}

#[test]
fn a_task_that_had_ended_stays_as_it_was() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.cancel("1").0, Answer::Rejected(Rejection::NotLive));
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
    assert_eq!(world.cancel("task-9").0, Answer::Rejected(Rejection::NotLive));
    assert_eq!(world.cancel("1.5").0, Answer::Rejected(Rejection::NotLive));
}

#[test]
fn a_cancel_is_remembered_through_a_restart() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.cancel("1");
    world.restart();
    let held = Some(vec![started("task-1-a1")]);
    let (_, sent) = world.say_hello("worker-1", 1, Some(1), held);
    assert_eq!(sent, "worker-1: stop task-1-a1 Cancelled");
    world.pass(1);
    // Given again with each report until it is done, because an order may be lost.
    let sent = world.full("worker-1", 1, vec![started("task-1-a1")]);
    assert_eq!(sent, "worker-1: stop task-1-a1 Cancelled, worker-1: ack 1");
}

#[test]
fn a_cancelled_task_whose_worker_is_lost_is_not_tried_again() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    world.cancel("1");
    world.pass(60_000);
    assert_eq!(world.state("task-1"), "cancelled cancelled");
}

#[test]
fn a_cancelled_assignment_keeps_its_room_while_the_assign_may_be_on_its_way() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.cancel("1");
    world.submit_one(1);
    // This report left before the assign came.
    let stop = "worker-1: stop task-1-a1 Cancelled, worker-1: ack 1";
    assert_eq!(world.full("worker-1", 1, Vec::new()), stop);
    world.report("worker-1", 1, started("task-1-a1"));
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    let sent = world.report("worker-1", 1, ended("task-1-a1", Cause::Cancelled));
    assert!(sent.ends_with("worker-1: assign task-2-a1"), "{sent}");
}

#[test]
fn a_cancelled_assignment_that_never_arrived_is_over_when_no_order_can_be_on_its_way() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.full("worker-1", 1, Vec::new());
    world.cancel("1");
    world.submit_one(1);
    world.pass(bounds::UNTAKEN_QUIET_MS - 1);
    world.full("worker-1", 1, Vec::new());
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    world.pass(1);
    let sent = world.full("worker-1", 1, Vec::new());
    let stop = "worker-1: stop task-1-a1 Stale, worker-1: ack 1, worker-1: assign task-2-a1";
    assert_eq!(sent, stop);
    assert_eq!(world.state("task-1"), "cancelled cancelled");
}

#[test]
fn a_task_between_two_tries_is_cancelled_at_once() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Infra));
    assert_eq!(world.cancel("1").0, cancelled(1, 0));
    assert_eq!(world.pass(bounds::BACKOFF_MS_MAX), "");
    assert_eq!(world.state("task-1"), "cancelled cancelled");
}

#[test]
fn one_task_of_an_array_is_cancelled_alone() {
    let mut world = World::new();
    world.submit(spec(1), array(1, 3, None));
    assert_eq!(world.cancel("1.2").0, cancelled(1, 0));
    world.hello("worker-1", 8);
    assert_eq!(world.state("task-1.1"), "assigned a1 worker-1");
    assert_eq!(world.state("task-1.2"), "gone");
    assert_eq!(world.state("task-1.3"), "assigned a1 worker-1");
}

#[test]
fn capacity_stays_taken_until_the_container_is_gone() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.cancel("1");
    assert_eq!(world.submit_one(1), "");
    let sent = world.report("worker-1", 1, ended("task-1-a1", Cause::Cancelled));
    assert!(sent.ends_with("worker-1: assign task-2-a1"), "{sent}");
}

#[test]
fn what_has_ended_is_counted_by_how() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.submit(spec(1), array(1, 12, None));
    world.report("worker-1", 1, ended("task-1.1-a1", Cause::Exit(0)));
    world.report("worker-1", 1, ended("task-1.2-a1", Cause::Exit(1)));
    world.report("worker-1", 1, ended("task-1.3-a1", Cause::Oom));
    world.cancel("task-1.4");
    world.report("worker-1", 1, ended("task-1.4-a1", Cause::Exit(0)));
    world.cancel("task-1.9");
    let counts = world.core.facts().jobs[&JobId(1)].ended;
    assert_eq!((counts.succeeded, counts.failed, counts.cancelled), (1, 2, 2));
}
