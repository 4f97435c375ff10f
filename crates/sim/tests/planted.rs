//! The judge can fail: some planted bugs that it must find at once, by the invariant that they
//! break and in worlds that are well without them. `make sim-planted` has all of them, from new
//! seeds each time.

use cloudai_sim::{Plant, find_planted, run_many};

fn check(plant: Plant) {
    if let Err(why) = find_planted(plant, 1, 100, 1) {
        panic!("{}: {why}", plant.name());
    }
}

#[test]
fn a_healthy_world_passes_and_is_the_same_again() {
    let sum = run_many(1, 20, 1, None);
    assert!(sum.failure.is_none(), "{:?}", sum.failure);
    assert_eq!(sum.runs, 20);
}

#[test]
fn effects_that_leave_before_the_commit_are_seen() {
    check(Plant::EffectsBeforeCommit);
}

#[test]
fn a_lost_wake_up_is_seen() {
    check(Plant::LostWakeUp);
}

#[test]
fn a_missing_fence_is_seen() {
    check(Plant::NoFence);
}

#[test]
fn a_second_start_is_seen() {
    check(Plant::DoubleStart);
}

#[test]
fn a_restart_that_starts_again_is_seen() {
    check(Plant::AdoptRestarts);
}

#[test]
fn a_restart_that_forgets_is_seen() {
    check(Plant::RecordForgotten);
}

#[test]
fn a_late_hello_that_counts_is_seen() {
    check(Plant::LateHello);
}

#[test]
fn a_hello_of_the_dead_that_counts_is_seen() {
    check(Plant::DeadHello);
}

#[test]
fn a_cancel_that_nobody_asked_for_is_seen() {
    check(Plant::CancelTooMany);
}

#[test]
fn a_cancel_that_is_refused_is_seen() {
    check(Plant::CancelRefused);
}

#[test]
fn room_that_is_given_before_it_is_there_is_seen() {
    check(Plant::RoomTooSoon);
}

#[test]
fn a_wait_with_a_false_reason_is_seen() {
    check(Plant::HealthKept);
}

#[test]
fn a_half_true_memory_is_seen() {
    check(Plant::FullIgnored);
}
