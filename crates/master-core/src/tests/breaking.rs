//! A worker on which everything fails is put aside for a while, and its work runs elsewhere.

use cloudai_model::{AttemptReport, Cause, JobShape, Outcome, ReportWhat, Timestamp};
use cloudai_scheduler::Standing;

use super::world::{World, accepted, ended, spec, started, worker};
use crate::{Command, bounds};

/// The end of an attempt that ran for so long.
fn ended_after_ms(attempt: &str, ran_ms: u64, cause: Cause) -> AttemptReport {
    let (started_at, outcome) = (Some(Timestamp(5)), Outcome::new(cause, ""));
    let what = ReportWhat::Ended { started_at, outcome, at: Timestamp(5 + ran_ms) };
    AttemptReport { attempt: attempt.parse().unwrap(), what }
}

/// Tasks of jobs of their own that fail on `worker-1`, one after the other.
fn fail_jobs(world: &mut World, jobs: impl Iterator<Item = u64>, ran_ms: u64) {
    for job in jobs {
        world.submit_one(1);
        let end = ended_after_ms(&format!("task-{job}-a1"), ran_ms, Cause::Exit(1));
        world.report("worker-1", world.session("worker-1"), end);
    }
}

fn put_aside(world: &World) -> String {
    match world.standing("worker-1") {
        Standing::PutAside(why) => why,
        other => panic!("{other:?}"),
    }
}

/// A worker that was put aside a moment ago, beside a good one that is too small for anything.
fn broken() -> World {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 0);
    fail_jobs(&mut world, 1..=u64::from(bounds::BREAKER_FAILURES), 100);
    world
}

/// Time passes while the worker is heard.
fn pass(world: &mut World, ms: u64) -> String {
    world.now_ms += ms;
    world.full("worker-2", world.session("worker-2"), Vec::new());
    world.full("worker-1", world.session("worker-1"), Vec::new());
    world.pass(0)
}

#[test]
fn a_worker_that_fails_every_task_at_once_is_put_aside_and_its_work_runs_elsewhere() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 4);
    fail_jobs(&mut world, 1..u64::from(bounds::BREAKER_FAILURES), 100);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    fail_jobs(&mut world, 5..=5, 100);
    let want = "for 30 s more, then tried with one task, after 5 failures in a row; \
                last: task-5-a1 ended with exit(1)";
    assert_eq!(put_aside(&world), want);
    assert_eq!(world.submit_one(1), "worker-2: assign task-6-a1");
}

#[test]
fn a_failure_after_a_while_says_that_the_worker_works() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 0);
    fail_jobs(&mut world, 1..=20, bounds::QUICK_EXIT_MS);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    fail_jobs(&mut world, 21..=25, bounds::QUICK_EXIT_MS - 1);
    assert!(put_aside(&world).starts_with("for 30 s more, then tried with one task, after 5 "));
}

#[test]
fn a_clock_that_goes_back_makes_no_long_task_a_quick_exit() {
    for (claimed_ms, passed_ms, counts) in [
        (1, 0, true),
        (1, bounds::QUICK_EXIT_DOUBT_MS + 1, true),
        (1, bounds::QUICK_EXIT_DOUBT_MS + 2, false),
        // The end was before the start, and the worker says that it was with it. So does an
        // engine that counts in seconds.
        (0, bounds::QUICK_EXIT_DOUBT_MS, true),
        (0, bounds::QUICK_EXIT_DOUBT_MS + 1, false),
    ] {
        let mut world = World::new();
        world.hello("worker-1", 4);
        world.hello("worker-2", 0);
        for job in 1..=u64::from(bounds::BREAKER_FAILURES) {
            world.submit_one(1);
            world.report("worker-1", 1, started(&format!("task-{job}-a1")));
            world.now_ms += passed_ms;
            let end = ended_after_ms(&format!("task-{job}-a1"), claimed_ms, Cause::Exit(1));
            world.report("worker-1", 1, end);
        }
        let is_aside = world.standing("worker-1") != Standing::Active;
        assert_eq!(is_aside, counts, "{claimed_ms} ms in {passed_ms} ms");
        let liveness = &world.core.liveness[&super::world::worker("worker-1")];
        assert!(liveness.heard_running.is_empty(), "what has ended is not kept");
    }
}

#[test]
fn one_bad_array_never_puts_a_good_worker_aside() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 0);
    world.submit(spec(1), super::world::array(1, 100, None));
    for index in 1..=100 {
        let end = ended_after_ms(&format!("task-1.{index}-a1"), 100, Cause::Exit(1));
        world.report("worker-1", 1, end);
    }
    assert_eq!(world.standing("worker-1"), Standing::Active);
}

#[test]
fn failures_of_its_engine_count_whatever_job_they_hit() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 0);
    world.submit(spec(1), super::world::array(1, 9, None));
    for index in 1..=bounds::BREAKER_FAILURES {
        assert_eq!(world.standing("worker-1"), Standing::Active);
        world.report("worker-1", 1, ended(&format!("task-1.{index}-a1"), Cause::Infra));
    }
    assert!(put_aside(&world).ends_with("last: task-1.5-a1 ended with infra"));
}

#[test]
fn it_is_tried_again_by_one_attempt_at_a_time_without_another_event() {
    let mut world = broken();
    world.submit_one(1);
    world.submit_one(1);
    assert_eq!(pass(&mut world, 10_000), "");
    assert_eq!(pass(&mut world, 10_000), "");
    assert!(put_aside(&world).starts_with("for 10 s more"));
    world.now_ms += 10_000;
    assert_eq!(world.core.next_deadline(), Some(world.now().mono));
    assert_eq!(world.pass(0), "worker-1: assign task-6-a1");
    assert!(put_aside(&world).starts_with("while task-6-a1 is tried after 5 failures in a row"));
    let sent = world.report("worker-1", 1, ended("task-6-a1", Cause::Exit(0)));
    let want = "worker-1: forget task-6-a1, worker-1: ack 1, worker-1: assign task-7-a1";
    assert_eq!(sent, want);
    assert_eq!(world.standing("worker-1"), Standing::Active);
}

#[test]
fn a_failed_trial_puts_it_aside_for_twice_as_long() {
    let mut world = broken();
    world.submit_one(1);
    assert_eq!(pass(&mut world, bounds::BREAKER_MS_MIN), "worker-1: assign task-6-a1");
    world.report("worker-1", 1, ended("task-6-a1", Cause::Infra));
    assert!(put_aside(&world).starts_with("for 60 s more, then tried with one task, after 6 "));
}

#[test]
fn a_trial_that_was_cancelled_or_lost_makes_room_for_the_next() {
    let mut world = broken();
    world.submit_one(1);
    world.submit_one(1);
    assert_eq!(pass(&mut world, bounds::BREAKER_MS_MIN), "worker-1: assign task-6-a1");
    world.cancel("task-6");
    let sent = world.report("worker-1", 1, ended("task-6-a1", Cause::Cancelled));
    assert!(sent.ends_with("worker-1: assign task-7-a1"), "{sent}");
    world.report("worker-1", 1, started("task-7-a1"));
    // Its worker has lost it: the same task is the next trial.
    let sent = world.full("worker-1", 1, Vec::new());
    assert!(sent.ends_with("worker-1: assign task-7-a2"), "{sent}");
}

#[test]
fn a_trial_that_runs_for_a_while_closes_it_without_another_event() {
    let mut world = broken();
    world.submit_one(1);
    world.submit_one(1);
    assert_eq!(pass(&mut world, bounds::BREAKER_MS_MIN), "worker-1: assign task-6-a1");
    world.report("worker-1", 1, started("task-6-a1"));
    assert_eq!(world.pass(bounds::QUICK_EXIT_MS - 1), "");
    world.now_ms += 1;
    assert_eq!(world.core.next_deadline(), Some(world.now().mono));
    assert_eq!(world.pass(0), "worker-1: assign task-7-a1");
    assert_eq!(world.standing("worker-1"), Standing::Active);
    assert_eq!(world.told.last(), Some(&Standing::Active));
}

#[test]
fn a_trial_that_does_not_start_makes_room_for_the_next_without_another_event() {
    let mut world = broken();
    world.submit_one(1);
    world.submit_one(1);
    assert_eq!(pass(&mut world, bounds::BREAKER_MS_MIN), "worker-1: assign task-6-a1");
    let held = || vec![accepted("task-6-a1")];
    for _ in 0..2 {
        world.now_ms += bounds::TRIAL_MS_MAX / 2 - 1;
        world.full("worker-2", world.session("worker-2"), Vec::new());
        assert_eq!(world.full("worker-1", world.session("worker-1"), held()), "worker-1: ack 1");
    }
    world.now_ms += 2;
    assert_eq!(world.pass(0), "worker-1: assign task-7-a1");
    assert!(put_aside(&world).starts_with("while task-7-a1 is tried"));
    // The first one still counts.
    world.report("worker-1", world.session("worker-1"), ended("task-6-a1", Cause::Exit(0)));
    assert_eq!(world.standing("worker-1"), Standing::Active);
}

#[test]
fn each_attempt_since_counts_while_there_is_no_better_worker() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    fail_jobs(&mut world, 1..=5, 100);
    world.full("worker-1", 1, Vec::new());
    world.pass(bounds::BREAKER_MS_MIN);
    world.full("worker-1", 1, Vec::new());
    assert_eq!(world.submit_one(1), "worker-1: assign task-6-a1");
    assert_eq!(world.submit_one(1), "worker-1: assign task-7-a1");
    world.report("worker-1", 1, ended("task-6-a1", Cause::Exit(0)));
    world.hello("worker-2", 0);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    assert_eq!(
        world.submit(spec(1), super::world::array(1, 2, None)).1.matches("assign").count(),
        2
    );
}

#[test]
fn the_operator_is_told_of_a_restart_only_when_it_brings_a_worker_back() {
    let mut world = broken();
    world.told.clear();
    world.hello("worker-2", 0);
    assert_eq!(world.told, []);
    world.hello("worker-1", 4);
    assert_eq!(world.told, [Standing::Active]);
}

#[test]
fn a_restarted_worker_and_a_restarted_master_begin_anew() {
    let mut world = broken();
    world.say_hello("worker-1", 4, Some(1), Some(Vec::new()));
    assert!(put_aside(&world).starts_with("for 30 s more"));
    world.hello("worker-1", 4);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    let mut world = broken();
    world.restart();
    world.say_hello("worker-2", 0, Some(2), Some(Vec::new()));
    world.say_hello("worker-1", 4, Some(1), Some(Vec::new()));
    assert_eq!(world.standing("worker-1"), Standing::Active);
}

#[test]
fn the_last_worker_that_there_is_is_never_put_aside() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    fail_jobs(&mut world, 1..=20, 100);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    // A good one comes, and goes again: work that waits for one of them does not wait for an event.
    let good = world.hello("worker-2", 0);
    assert!(put_aside(&world).starts_with("for 30 s more"));
    assert_eq!(world.submit_one(1), "");
    let goodbye = Command::Goodbye { worker: worker("worker-2"), session: good };
    assert_eq!(world.turn(goodbye).1, "worker-1: assign task-21-a1");
}

#[test]
fn a_good_worker_that_falls_silent_gives_the_work_back_to_a_bad_one() {
    let mut world = broken();
    world.submit_one(1);
    world.now_ms += bounds::INACTIVE_AFTER_MS - 1;
    world.full("worker-1", 1, Vec::new());
    assert_eq!(world.pass(1), "worker-1: assign task-6-a1");
}

#[test]
fn the_reason_is_named_where_a_task_waits_for_it() {
    let mut world = broken();
    world.submit(spec(1), JobShape::Single);
    let explanation = world.core.explain("task-6".parse().unwrap()).unwrap();
    let want = "the workers that could take it get no new work now";
    assert_eq!(explanation.wait.to_string(), want);
    let refusal = explanation.workers[0].refusal.as_ref().unwrap().to_string();
    assert!(refusal.starts_with("put aside for 30 s more, then tried with one task, after 5"));
}

#[test]
fn the_operator_is_told_when_it_is_put_aside_and_when_it_is_back() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 0);
    world.told.clear();
    fail_jobs(&mut world, 1..=5, 100);
    world.submit_one(1);
    pass(&mut world, bounds::BREAKER_MS_MIN);
    world.report("worker-1", 1, ended("task-6-a1", Cause::Exit(0)));
    let told: Vec<String> = world.told.iter().map(|standing| format!("{standing:?}")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("PutAside(\"for 30 s more"), "{told:?}");
    assert_eq!(told[1], "Active");
}
