//! The judge can fail: some planted bugs that it must find at once. `make sim-planted` has all of
//! them, from new seeds each time.

use cloudai_sim::{Plant, run_many};

fn check(plant: Plant, invariant: &str) {
    let found = run_many(1, 50, 1, Some(plant)).failure.expect("the judge finds the planted bug");
    assert!(found.why.starts_with(invariant), "{}", found.why);
}

#[test]
fn effects_that_leave_before_the_commit_are_seen() {
    // An answer to a client, or an order to a worker: the seed chooses which is seen first.
    let found = run_many(1, 50, 1, Some(Plant::EffectsBeforeCommit)).failure;
    assert!(found.is_some(), "the judge finds the planted bug");
}

#[test]
fn a_lost_wake_up_is_seen() {
    check(Plant::LostWakeUp, "a task that a worker has room for is placed");
}

#[test]
fn a_missing_fence_is_seen() {
    let found = run_many(1, 50, 1, Some(Plant::NoFence)).failure;
    assert!(found.is_some(), "the judge finds the planted bug");
}

#[test]
fn a_second_start_is_seen() {
    check(Plant::DoubleStart, "no attempt is started twice");
}

#[test]
fn a_healthy_world_passes_and_is_the_same_again() {
    let sum = run_many(1, 20, 1, None);
    assert!(sum.failure.is_none(), "{:?}", sum.failure);
    assert_eq!(sum.runs, 20);
}

#[test]
fn a_restart_that_starts_again_is_seen() {
    check(Plant::AdoptRestarts, "no attempt is started twice");
}

#[test]
fn a_restart_that_forgets_is_seen() {
    check(Plant::RecordForgotten, "a restarted worker takes up what it recorded");
}

#[test]
fn a_late_hello_that_counts_is_seen() {
    let found = run_many(1, 50, 1, Some(Plant::LateHello)).failure;
    assert!(found.is_some(), "the judge finds the planted bug");
}

#[test]
fn a_hello_of_the_dead_that_counts_is_seen() {
    check(Plant::DeadHello, "at most one attempt of a task holds a valid lease");
}
