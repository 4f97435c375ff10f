//! Which ends are tried again, how often, and that a loss does not use up the user's retries.

use cloudai_model::{Cause, JobShape};

use super::world::{World, ended, spec};
use crate::bounds;

fn fail(world: &mut World, attempt: u32, cause: Cause) {
    world.report("worker-1", 1, ended(&format!("task-1-a{attempt}"), cause));
}

#[test]
fn a_failed_task_is_tried_as_often_as_its_user_said() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let mut wants = spec(1);
    wants.retry.retries_max = 1;
    world.submit(wants, JobShape::Single);
    fail(&mut world, 1, Cause::Exit(1));
    assert_eq!(world.state("task-1"), "queued a2");
    assert_eq!(world.pass(bounds::BACKOFF_MS_MIN - 1), "");
    assert_eq!(world.pass(1), "worker-1: assign task-1-a2");
    fail(&mut world, 2, Cause::Oom);
    assert_eq!(world.state("task-1"), "failed oom");
}

#[test]
fn losses_do_not_use_up_the_users_retries() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let mut wants = spec(1);
    wants.retry.retries_max = 1;
    world.submit(wants, JobShape::Single);
    for attempt in 1..=3 {
        fail(&mut world, attempt, Cause::Infra);
        world.pass(bounds::BACKOFF_MS_MAX);
        world.full("worker-1", 1, Vec::new());
    }
    fail(&mut world, 4, Cause::Exit(1));
    assert_eq!(world.state("task-1"), "queued a5");
}

#[test]
fn losses_have_a_budget_of_their_own() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    for attempt in 1..=bounds::LOSSES_MAX + 1 {
        assert!(world.state("task-1").starts_with("assigned"), "{attempt}");
        fail(&mut world, attempt, Cause::Infra);
        world.pass(bounds::BACKOFF_MS_MAX);
        world.full("worker-1", 1, Vec::new());
    }
    assert_eq!(world.state("task-1"), "failed infra");
}

#[test]
fn a_container_that_somebody_stopped_is_lost_and_not_cancelled() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    fail(&mut world, 1, Cause::Cancelled);
    assert_eq!(world.state("task-1"), "assigned a2 worker-1");
}

#[test]
fn a_restart_forgets_a_backoff_and_remembers_the_loss() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    fail(&mut world, 1, Cause::Infra);
    world.restart();
    let (_, sent) = world.say_hello("worker-1", 1, Some(1), Some(Vec::new()));
    assert_eq!(sent, "worker-1: assign task-1-a2");
    assert_eq!(world.core.facts().find_live("task-1".parse().unwrap()).unwrap().losses, 1);
}
