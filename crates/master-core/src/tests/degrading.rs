//! A worker that is not well by its own words: it keeps what it has and gets nothing new.

use cloudai_model::{AttemptReport, Cause, JobShape};
use cloudai_scheduler::Standing;

use super::world::{World, accepted, ended, spec, started, worker};
use crate::{Explanation, FullReport, bounds};

const FULL: &str = "the disk is 96 % full";

/// A heartbeat of `worker-1` with what it says of its health.
fn beat(world: &mut World, held: Vec<AttemptReport>, degraded: Option<&str>) -> String {
    let degraded = degraded.map(str::to_owned);
    world.heartbeat("worker-1", 1, FullReport { held, degraded })
}

fn degraded() -> Standing {
    Standing::Degraded(FULL.to_owned())
}

fn explain(world: &World, task: &str) -> String {
    let Explanation { wait, workers } = world.core.explain(task.parse().unwrap()).unwrap();
    let why = |verdict: &crate::WorkerVerdict| match &verdict.refusal {
        Some(refusal) => format!("{}: {refusal}", verdict.worker),
        None => format!("{}: could take it", verdict.worker),
    };
    let workers: Vec<String> = workers.iter().map(why).collect();
    format!("{wait}; {}", workers.join("; "))
}

#[test]
fn a_degraded_worker_gets_no_new_work_and_takes_it_at_once_when_it_is_well() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    assert_eq!(beat(&mut world, Vec::new(), Some(FULL)), "worker-1: ack 1");
    assert_eq!(world.submit_one(1), "");
    assert_eq!(world.standing("worker-1"), degraded());
    let sent = beat(&mut world, Vec::new(), None);
    assert_eq!(sent, "worker-1: ack 1, worker-1: assign task-1-a1");
    assert_eq!(world.standing("worker-1"), Standing::Active);
}

#[test]
fn its_work_goes_on_under_its_lease() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    for _ in 0..20 {
        world.pass(bounds::INACTIVE_AFTER_MS - 1);
        beat(&mut world, vec![started("task-1-a1")], Some(FULL));
    }
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
}

#[test]
fn an_order_that_it_has_not_taken_yet_is_still_given() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    let sent = beat(&mut world, Vec::new(), Some(FULL));
    assert_eq!(sent, "worker-1: assign task-1-a1, worker-1: ack 1");
    beat(&mut world, vec![accepted("task-1-a1")], Some(FULL));
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
}

#[test]
fn what_it_cannot_take_runs_elsewhere() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 1);
    beat(&mut world, Vec::new(), Some(FULL));
    assert_eq!(world.submit_one(1), "worker-2: assign task-1-a1");
}

#[test]
fn it_says_so_in_its_hello_first_or_again() {
    let mut world = World::new();
    world.hello_degraded("worker-1", None, FULL);
    assert_eq!(world.submit_one(1), "");
    world.say_hello("worker-1", 1, Some(1), Some(Vec::new()));
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    world.hello_degraded("worker-1", Some(1), FULL);
    assert_eq!(world.standing("worker-1"), degraded());
}

#[test]
fn silence_weighs_more_and_a_new_process_begins_well() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    beat(&mut world, Vec::new(), Some(FULL));
    world.pass(bounds::INACTIVE_AFTER_MS);
    assert_eq!(world.standing("worker-1"), Standing::Inactive);
    world.hello("worker-1", 1);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    // Nothing of it is durable: its next full report says it again.
    beat(&mut world, Vec::new(), Some(FULL));
    world.restart();
    assert_eq!(world.core.liveness[&worker("worker-1")].degraded, None);
}

#[test]
fn the_reason_is_named_where_a_task_waits_for_it() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    beat(&mut world, Vec::new(), Some(FULL));
    world.submit(spec(1), JobShape::Single);
    let want = "the workers that could take it get no new work now; \
                worker-1: degraded: the disk is 96 % full";
    assert_eq!(explain(&world, "task-1"), want);
    world.submit(spec(2), JobShape::Single);
    let want = "no active worker could ever take it; it waits for one that can; \
                worker-1: wants 2 cores, 1 in all: it can never run there";
    assert_eq!(explain(&world, "task-2"), want);
}
