//! What is said of a task that waits: each worker with the first need that does not fit.

use std::sync::Arc;

use cloudai_model::{Cause, JobShape};

use super::world::{World, array, ended, spec, started};
use crate::view::{REASONS_MAX, WAITING_MAX};
use crate::{Command, Input, Submission};

/// The whole explanation as text.
fn explain(world: &World, task: &str) -> String {
    let Some(explanation) = world.core.explain(task.parse().unwrap()) else {
        return "not live".to_owned();
    };
    let mut lines = vec![explanation.wait.to_string()];
    for verdict in explanation.workers {
        let why = verdict.refusal.map_or("could take it".to_owned(), |why| why.to_string());
        lines.push(format!("{}: {why}", verdict.worker));
    }
    lines.join("\n")
}

#[test]
fn every_worker_is_named_with_the_first_need_that_does_not_fit() {
    let mut world = World::new();
    world.submit_one(4);
    assert_eq!(explain(&world, "1"), "no workers registered yet");
    world.hello("worker-1", 2);
    world.hello("worker-2", 5);
    world.submit_one(1);
    world.submit_one(4);
    assert_eq!(
        explain(&world, "3"),
        "no worker has room for it now\n\
         worker-1: wants 4 cores, 2 in all: it can never run there\n\
         worker-2: wants 4 cores, 1 free"
    );
    world.submit_one(64);
    assert!(explain(&world, "4").starts_with("no active worker could ever take it"));
    assert_eq!(explain(&world, "9"), "not live");
}

#[test]
fn held_bounded_and_delayed_tasks_say_so() {
    let mut world = World::new();
    world.hello("worker-1", 8);
    world.submit(spec(1), array(1, 2, Some(1)));
    assert!(explain(&world, "1.1").starts_with("assigned to worker-1"));
    world.report("worker-1", 1, started("task-1.1-a1"));
    assert_eq!(explain(&world, "1.1"), "running on worker-1");
    assert!(explain(&world, "1.2").starts_with("its job may have 1 tasks at once"));
    world.submit(spec(1), JobShape::Single);
    world.report("worker-1", 1, ended("task-2-a1", Cause::Infra));
    assert!(explain(&world, "2").starts_with("its last attempt was lost"));
}

#[test]
fn the_queue_shows_what_waits_and_why() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit(spec(9), array(1, 5, None));
    let view = world.core.view(world.now());
    assert_eq!((view.tasks.queued, view.waiting.len()), (5, 1));
    assert_eq!((view.waiting[0].count, view.waiting[0].first.to_string()), (5, "task-1.1".into()));
    let want = "worker-1: wants 9 cores, 1 in all: it can never run there";
    assert_eq!(view.waiting[0].reason, want);
}

#[test]
fn a_store_without_room_is_named_where_nothing_else_is_in_the_way() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    for cores in [1, 9] {
        let (spec, shape) = (Arc::new(spec(cores)), JobShape::Single);
        let command = Command::Submit(Submission { spec, shape, request: None, known: None });
        drop(world.core.step(world.now(), Input { from: None, command }));
    }
    let too_large = explain(&world, "2");
    assert!(explain(&world, "1").starts_with("a worker has room: it is placed next"));
    world.core.set_store_full(true);
    let want = "a worker has room, but the master's disk has none, and nothing new can be stored \
                or placed; free space there, and it goes on by itself";
    assert_eq!(explain(&world, "1"), format!("{want}\nworker-1: could take it"));
    assert_eq!(explain(&world, "2"), too_large);
    let reasons: Vec<String> =
        world.core.view(world.now()).waiting.into_iter().map(|waiting| waiting.reason).collect();
    let never = "worker-1: wants 9 cores, 1 in all: it can never run there";
    assert_eq!(reasons, [want, never]);
    world.core.set_store_full(false);
    assert!(explain(&world, "1").starts_with("a worker has room: it is placed next"));
}

#[test]
fn a_view_is_bounded_and_says_how_many_it_means() {
    let mut world = World::new();
    for index in 0..=REASONS_MAX {
        world.hello(&format!("worker-{index}"), 1);
    }
    for extra in 0..=WAITING_MAX as u64 {
        world.submit_one(2 + extra);
    }
    let view = world.core.view(world.now());
    assert_eq!((view.waiting.len(), view.tasks.queued), (WAITING_MAX, WAITING_MAX as u64 + 1));
    assert_eq!(view.waiting[0].reason.split("; ").count(), REASONS_MAX);
}
