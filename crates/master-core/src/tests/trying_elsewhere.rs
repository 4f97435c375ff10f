//! A task that was lost by no fault of its own is tried on another worker, when one has room now.

use cloudai_model::{Cause, JobShape};

use super::world::{World, array, ended, spec, started, tiny, worker};
use crate::bounds;

/// Two workers of that many cores, and a task of one core that was lost on the first one.
fn lost(cores: [u64; 2], cause: Cause) -> World {
    let mut world = World::new();
    for (name, cores) in ["worker-1", "worker-2"].into_iter().zip(cores) {
        world.hello(name, cores);
    }
    assert_eq!(world.submit_one(1), "worker-1: assign task-1-a1");
    world.report("worker-1", 1, ended("task-1-a1", cause));
    world
}

fn later(world: &mut World) -> String {
    world.pass(bounds::BACKOFF_MS_MIN)
}

#[test]
fn what_an_engine_failed_is_tried_on_another_worker() {
    let mut world = lost([4, 1], Cause::Infra);
    assert_eq!(later(&mut world), "worker-2: assign task-1-a2");
    // It goes back rather than fail on the same one twice in a row.
    world.report("worker-2", 2, ended("task-1-a2", Cause::Infra));
    assert_eq!(world.pass(2 * bounds::BACKOFF_MS_MIN), "worker-1: assign task-1-a3");
}

#[test]
fn what_a_worker_lost_is_tried_on_another_one_at_once() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 1);
    world.submit_one(1);
    world.hello("worker-1", 1);
    assert_eq!(world.state("task-1"), "assigned a2 worker-2");
}

#[test]
fn nothing_waits_for_another_worker() {
    // None has room, or could ever have it.
    let mut world = lost([1, 0], Cause::Infra);
    assert_eq!(later(&mut world), "worker-1: assign task-1-a2");
    let mut world = lost([2, 1], Cause::Infra);
    let mut bound = spec(1);
    bound.target = Some(worker("worker-2"));
    assert_eq!(world.submit(bound, JobShape::Single).1, "worker-2: assign task-2-a1");
    assert_eq!(later(&mut world), "worker-1: assign task-1-a2");
    // Its user wants it there.
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 1);
    let mut bound = spec(1);
    bound.target = Some(worker("worker-1"));
    world.submit(bound, JobShape::Single);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Infra));
    assert_eq!(later(&mut world), "worker-1: assign task-1-a2");
}

#[test]
fn a_failure_of_the_tasks_own_says_nothing_of_its_worker() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 1);
    let mut wants = spec(1);
    wants.retry.retries_max = 1;
    world.submit(wants, JobShape::Single);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(1)));
    assert_eq!(later(&mut world), "worker-1: assign task-1-a2");
}

#[test]
fn tasks_of_one_shape_change_places_and_the_room_of_a_plan_is_used() {
    let mut world = lost([2, 1], Cause::Infra);
    // Behind it in the queue, of the same shape: the plan has room for both on worker-1.
    world.submit(spec(2), JobShape::Single);
    assert_eq!(world.state("task-2"), "assigned a1 worker-1");
    world.submit(spec(1), array(1, 2, None));
    assert_eq!(world.state("task-3.1"), "assigned a1 worker-2");
    later(&mut world);
    assert_eq!(world.state("task-1"), "queued a2");
    let sent = world.report("worker-1", 1, ended("task-2-a1", Cause::Exit(0)));
    assert!(sent.ends_with("worker-1: assign task-3.2-a1, worker-1: assign task-1-a2"), "{sent}");
}

#[test]
fn two_tasks_of_one_shape_change_places_and_no_third_worker_is_opened() {
    let mut world = World::new();
    for name in ["worker-1", "worker-2", "worker-3"] {
        world.hello(name, 1);
    }
    world.submit_one(1);
    world.submit_one(1);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Infra));
    world.report("worker-2", 2, ended("task-2-a1", Cause::Infra));
    let sent = later(&mut world);
    assert_eq!(sent, "worker-2: assign task-1-a2, worker-1: assign task-2-a2");
}

#[test]
fn room_that_a_plan_has_for_another_task_is_not_taken() {
    // The small one and the large one were both lost where the plan puts them again; the small
    // one may not take the only place in which the large one fits.
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.hello("worker-2", 2);
    world.submit_one(2);
    assert_eq!(world.state("task-2"), "assigned a1 worker-2");
    world.report("worker-1", 1, ended("task-1-a1", Cause::Infra));
    world.report("worker-2", 2, ended("task-2-a1", Cause::Infra));
    let sent = later(&mut world);
    assert_eq!(sent, "worker-1: assign task-1-a2, worker-2: assign task-2-a2");
}

#[test]
fn room_that_it_leaves_is_used_without_another_event() {
    // Both want two cores; the one behind fits on no other worker, and the plan has no room for it.
    let mut world = World::new();
    world.hello("worker-1", 2);
    world.submit_one(2);
    world.hello("worker-2", 2);
    let mut bound = spec(2);
    bound.target = Some(worker("worker-1"));
    world.submit(bound, JobShape::Single);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Infra));
    assert_eq!(world.state("task-2"), "assigned a1 worker-1");
    world.report("worker-1", 1, ended("task-2-a1", Cause::Infra));
    assert_eq!(later(&mut world), "worker-2: assign task-1-a2");
    assert_eq!(world.core.next_deadline(), Some(world.now().mono));
    assert_eq!(world.pass(0), "worker-1: assign task-2-a2");
}

#[test]
fn the_one_place_of_a_worker_on_trial_is_not_taken() {
    // As above, but the large one is what its worker is tried with: no other task fits beside it.
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 8);
    world.submit_one(1);
    world.submit_one(2);
    for attempt in 1..=bounds::BREAKER_FAILURES {
        assert_eq!(world.state("task-2"), format!("assigned a{attempt} worker-2"));
        world.report("worker-2", 2, ended(&format!("task-2-a{attempt}"), Cause::Infra));
        if attempt < bounds::BREAKER_FAILURES {
            world.pass(bounds::BACKOFF_MS_MIN << (attempt - 1));
        }
    }
    let tried_at = world.now_ms + bounds::BREAKER_MS_MIN;
    while world.now_ms < tried_at - bounds::BACKOFF_MS_MIN {
        assert_eq!(later(&mut world), "");
        world.full("worker-1", 1, vec![started("task-1-a1")]);
        world.full("worker-2", 2, Vec::new());
    }
    world.report("worker-1", 1, ended("task-1-a1", Cause::Infra));
    let sent = later(&mut world);
    assert_eq!(sent, "worker-1: assign task-1-a2, worker-2: assign task-2-a6");
}

#[test]
fn what_stays_where_it_was_lost_counts_for_the_bound_of_a_plan() {
    let mut world = World::new();
    let most = bounds::PLACEMENTS_PER_PLAN_MAX;
    world.hello("worker-1", most);
    world.submit(tiny(), array(1, most as u32, None));
    world.pass(0);
    assert!(world.core.next_deadline() > Some(world.now().mono));
    world.hello("worker-1", most);
    assert_eq!(world.state("task-1.1"), "assigned a2 worker-1");
    assert_eq!(world.core.next_deadline(), Some(world.now().mono));
}

#[test]
fn where_a_task_was_lost_is_forgotten_with_its_next_try_or_its_end() {
    let mut world = lost([1, 0], Cause::Infra);
    assert_eq!(world.core.lost_on.len(), 1);
    later(&mut world);
    assert_eq!(world.core.lost_on.len(), 0);
    let mut world = lost([1, 0], Cause::Infra);
    world.cancel("task-1");
    assert_eq!(world.core.lost_on.len(), 0);
}

#[test]
fn a_turn_that_was_not_kept_does_not_forget_it() {
    let mut world = lost([1, 1], Cause::Infra);
    world.lose_turn(crate::Command::Tick);
    assert_eq!(later(&mut world), "worker-2: assign task-1-a2");
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.lose_turn(crate::Command::Declined {
        worker: worker("worker-1"),
        attempt: "task-1-a1".parse().unwrap(),
        message: String::new(),
    });
    assert_eq!(world.core.lost_on.len(), 0);
}
