//! A turn that the store did not keep: what is known of the workers goes on, and nothing of it
//! counts twice.

use cloudai_model::{AttemptReport, Cause};
use cloudai_scheduler::Standing;

use super::world::{World, accepted, array, ended, reported, spec, started, worker};
use crate::{Command, bounds};

/// `worker-1` beside a good worker that is too small for anything, and an array that fails on it.
fn failing(times: u32) -> World {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 0);
    world.submit(spec(1), array(1, 99, None));
    for index in 1..=times {
        world.now_ms += 1;
        world.report("worker-1", 1, infra(index));
    }
    world.now_ms += 1;
    world
}

fn infra(index: u32) -> AttemptReport {
    ended(&format!("task-1.{index}-a1"), Cause::Infra)
}

fn said(report: AttemptReport) -> Command {
    reported("worker-1", 1, vec![report], None)
}

fn is_aside(world: &World) -> bool {
    matches!(world.standing("worker-1"), Standing::PutAside(_))
}

/// Both workers are heard, the first one with what it holds.
fn heard(world: &mut World, held: &[&str]) -> String {
    world.full("worker-2", 2, Vec::new());
    world.full("worker-1", 1, held.iter().map(|attempt| started(attempt)).collect())
}

#[test]
fn failures_before_it_still_count() {
    let mut world = failing(bounds::BREAKER_FAILURES - 1);
    world.lose_turn(Command::Tick);
    assert!(!is_aside(&world));
    world.report("worker-1", 1, infra(bounds::BREAKER_FAILURES));
    assert!(is_aside(&world));
}

#[test]
fn a_failure_that_comes_again_is_not_counted_twice() {
    let mut world = failing(0);
    for _ in 0..2 * bounds::BREAKER_FAILURES {
        world.lose_turn(said(infra(1)));
        world.now_ms += 1;
    }
    world.report("worker-1", 1, infra(1));
    assert!(!is_aside(&world));
}

#[test]
fn a_worker_that_was_put_aside_stays_so_and_is_tried_at_its_time_without_another_event() {
    let mut world = failing(bounds::BREAKER_FAILURES);
    let aside_at = world.now_ms - 1;
    world.now_ms += 10_000;
    heard(&mut world, &[]);
    world.lose_turn(Command::Tick);
    assert!(is_aside(&world));
    assert_eq!(world.pass(0), "");
    world.now_ms = aside_at + bounds::BREAKER_MS_MIN - 1;
    assert_eq!(heard(&mut world, &[]), "worker-1: ack 1");
    assert_eq!(world.pass(0), "");
    assert_eq!(world.core.next_deadline().unwrap().0, aside_at + bounds::BREAKER_MS_MIN);
    assert!(world.pass(1).starts_with("worker-1: assign"));
}

/// A worker on trial with an attempt, which the turn that was lost gave or not.
fn on_trial(is_kept: bool) -> (World, String) {
    let mut world = failing(bounds::BREAKER_FAILURES);
    for _ in 0..3 {
        world.now_ms += bounds::BREAKER_MS_MIN / 3;
        heard(&mut world, &[]);
    }
    if !is_kept {
        world.lose_turn(Command::Tick);
    }
    let sent = world.pass(1);
    (world, sent.strip_prefix("worker-1: assign ").unwrap().to_owned())
}

#[test]
fn a_trial_goes_on_and_one_that_never_was_makes_room() {
    for is_kept in [true, false] {
        let (mut world, trial) = on_trial(is_kept);
        assert!(is_aside(&world));
        world.report("worker-1", 1, started(&trial));
        world.lose_turn(Command::Tick);
        assert!(is_aside(&world));
        // It has run for a while, and no other event tells of it.
        let looked_at = world.now_ms + bounds::QUICK_EXIT_MS;
        while world.now_ms < looked_at {
            world.now_ms = world.core.next_deadline().unwrap().0.max(world.now_ms);
            world.pass(0);
        }
        assert!(!is_aside(&world));
    }
}

#[test]
fn a_trial_that_does_not_start_is_waited_for_no_longer() {
    let (mut world, trial) = on_trial(true);
    let until = world.now_ms + bounds::TRIAL_MS_MAX;
    world.lose_turn(Command::Tick);
    for ms in [bounds::TRIAL_MS_MAX / 3; 3] {
        assert!(is_aside(&world));
        world.now_ms += ms;
        let held = vec![accepted(&trial)];
        world.full("worker-2", 2, Vec::new());
        world.full("worker-1", 1, held);
    }
    assert_eq!(world.now_ms, until);
    assert_eq!(world.state(trial.strip_suffix("-a2").unwrap()), "assigned a2 worker-1");
    // The worker has one core: nothing more fits, but nothing keeps it from being tried.
    assert_eq!(world.standing("worker-1"), Standing::Active);
}

#[test]
fn a_wait_for_another_try_goes_on_and_ends_without_another_event() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    for attempt in 1..=4 {
        world.report("worker-1", 1, ended(&format!("task-1-a{attempt}"), Cause::Infra));
        if attempt < 4 {
            world.pass(bounds::BACKOFF_MS_MAX / 10);
            world.full("worker-1", 1, Vec::new());
        }
    }
    let wait_ms = 8 * bounds::BACKOFF_MS_MIN;
    world.now_ms += wait_ms / 2;
    world.lose_turn(Command::Tick);
    assert_eq!(world.pass(wait_ms / 2 - 1), "");
    assert_eq!(world.core.next_deadline(), Some(world.now().mono.plus_ms(1)));
    assert_eq!(world.pass(1), "worker-1: assign task-1-a5");
    // One that was over in the turn that was lost waits a moment more.
    world.report("worker-1", 1, ended("task-1-a5", Cause::Infra));
    world.now_ms += 2 * wait_ms;
    world.lose_turn(Command::Tick);
    assert_eq!(world.pass(bounds::BACKOFF_MS_MIN - 1), "");
    assert_eq!(world.pass(1), "worker-1: assign task-1-a6");
}

#[test]
fn an_attempt_that_is_not_taken_is_given_up_no_later() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    let mut given_up_ms = 0;
    while world.state("task-1") == "assigned a1 worker-1" {
        assert!(given_up_ms < 10 * bounds::UNTAKEN_MS_MAX, "it is never given up");
        world.now_ms += 5_000;
        given_up_ms += 5_000;
        world.full("worker-1", 1, Vec::new());
        world.lose_turn(Command::Tick);
    }
    assert_eq!(world.state("task-1"), "queued a2");
    assert!(given_up_ms > bounds::UNTAKEN_MS_MAX, "{given_up_ms}");
    assert!(given_up_ms <= bounds::UNTAKEN_MS_MAX + bounds::UNTAKEN_QUIET_MS + 10_000);
}

#[test]
fn what_was_refused_stays_counted() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.report("worker-1", 1, accepted("task-9-a1"));
    world.lose_turn(Command::Tick);
    assert_eq!(world.core.view(world.now()).stale_reports, 1);
    assert!(world.core.liveness[&worker("worker-1")].missed.is_empty());
}
