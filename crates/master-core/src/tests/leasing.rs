//! Leases, silence and loss: when a worker is given up, and what becomes of its tasks.

use cloudai_model::{AttemptReport, Cause, RetryPolicy};
use cloudai_scheduler::Standing;

use super::world::{World, accepted, ended, spec, started, worker};
use crate::{Answer, Command, FullReport, Input, bounds};

const LEASE_MS: u64 = 30_000;

#[test]
fn a_silent_worker_is_inactive_within_fifteen_seconds() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.pass(bounds::INACTIVE_AFTER_MS - 1);
    assert_eq!(world.submit_one(1), "worker-1: assign task-1-a1");
    world.pass(1);
    assert_eq!(world.submit_one(1), "");
    const { assert!(bounds::INACTIVE_AFTER_MS < 15_000) };
    assert_eq!(world.core.view(world.now()).workers[0].standing, Standing::Inactive);
}

#[test]
fn its_tasks_run_elsewhere_after_the_lease_and_not_before() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    world.hello("worker-2", 1);
    let until = LEASE_MS + bounds::lease_margin_ms(LEASE_MS);
    for _ in 0..(until / 1000) {
        assert_eq!(world.pass(1000), "");
        world.full("worker-2", 2, Vec::new());
        assert_eq!(world.state("task-1"), "running a1 worker-1");
    }
    assert_eq!(world.pass(until % 1000 - 1), "");
    assert_eq!(world.pass(1), "worker-2: assign task-1-a2");
}

#[test]
fn word_within_the_lease_renews_it() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    for _ in 0..10 {
        world.pass(LEASE_MS - 1);
        let sent = world.full("worker-1", 1, vec![started("task-1-a1")]);
        assert_eq!(sent, "worker-1: ack 1");
    }
    assert_eq!(world.state("task-1"), "running a1 worker-1");
}

#[test]
fn a_job_may_set_its_own_lease() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let mut wants = spec(1);
    wants.retry = RetryPolicy { lease_ms: 600_000, ..wants.retry };
    world.submit(wants, cloudai_model::JobShape::Single);
    world.pass(500_000);
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    // The longer the lease, the further the clocks may have drifted apart.
    world.pass(103_599);
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    world.pass(1);
    assert_eq!(world.state("task-1"), "queued a2");
}

#[test]
fn a_restarted_master_gives_every_worker_one_fresh_lease() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.pass(LEASE_MS);
    world.restart();
    world.pass(LEASE_MS);
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    // Nobody is given work before it was heard.
    assert_eq!(world.submit_one(1), "");
    let held = Some(vec![started("task-1-a1")]);
    world.say_hello("worker-1", 1, Some(1), held);
    assert_eq!(world.state("task-1"), "running a1 worker-1");
}

#[test]
fn an_assignment_that_got_lost_is_given_again() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    let sent = world.full("worker-1", 1, Vec::new());
    assert_eq!(sent, "worker-1: assign task-1-a1, worker-1: ack 1");
    assert_eq!(world.full("worker-1", 1, vec![accepted("task-1-a1")]), "worker-1: ack 1");
}

#[test]
fn a_running_task_that_its_worker_no_longer_has_is_lost() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    let sent = world.full("worker-1", 1, Vec::new());
    assert_eq!(sent, "worker-1: ack 1, worker-1: assign task-1-a2");
}

/// What the unary worker `plain` says every five seconds.
fn heartbeat(held: Vec<AttemptReport>) -> Command {
    let full = Some(FullReport { held, degraded: None });
    let worker = worker("plain");
    Command::Report { worker, session: None, sequence: 0, changes: Vec::new(), full }
}

#[test]
fn a_worker_that_registers_twice_and_falls_silent_is_inactive() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.pass(1_000);
    world.hello("worker-1", 1);
    world.pass(bounds::INACTIVE_AFTER_MS - 1);
    assert_eq!(world.standing("worker-1"), Standing::Active);
    world.pass(1);
    assert_eq!(world.standing("worker-1"), Standing::Inactive);
}

#[test]
fn a_unary_worker_is_given_time_for_its_result() {
    let mut world = World::new();
    assert!(matches!(world.say_hello("plain", 1, None, None).0, Answer::Welcome(_)));
    world.submit_one(1);
    world.turn(heartbeat(vec![started("task-1-a1")]));
    for _ in 1..bounds::MISSED_REPORTS_MAX {
        assert_eq!(world.turn(heartbeat(Vec::new())).1, "");
    }
    assert_eq!(world.state("task-1"), "running a1 plain");
    world.turn(heartbeat(Vec::new()));
    assert_eq!(world.state("task-1"), "assigned a2 plain");
}

fn declined(world: &mut World) -> Answer {
    let attempt = "task-1-a1".parse().unwrap();
    let message = "task already running".to_owned();
    world.turn(Command::Declined { worker: worker("plain"), attempt, message }).0
}

#[test]
fn a_no_counts_only_for_an_attempt_that_was_given_once_and_has_not_begun() {
    let given = || {
        let mut world = World::new();
        world.say_hello("plain", 1, None, None);
        assert_eq!(world.submit_one(1), "plain: assign task-1-a1");
        world
    };
    let mut once = given();
    declined(&mut once);
    assert_eq!(once.state("task-1"), "queued a2");
    let mut running = given();
    running.turn(heartbeat(vec![started("task-1-a1")]));
    declined(&mut running);
    assert_eq!(running.state("task-1"), "running a1 plain");
    // The heartbeat left before the assign came: the no is to the second one.
    let mut again = given();
    assert_eq!(again.turn(heartbeat(Vec::new())).1, "plain: assign task-1-a1");
    declined(&mut again);
    assert_eq!(again.state("task-1"), "assigned a1 plain");
    again.turn(heartbeat(vec![started("task-1-a1")]));
    assert_eq!(again.state("task-1"), "running a1 plain");
}

#[test]
fn a_no_to_a_worker_that_has_a_session_since_counts_for_nothing() {
    let mut world = World::new();
    world.say_hello("plain", 1, None, None);
    world.submit_one(1);
    world.say_hello("plain", 1, None, Some(vec![started("task-1-a1")]));
    assert!(matches!(declined(&mut world), Answer::Rejected(_)));
    assert_eq!(world.core.stale_reports, 1);
    assert_eq!(world.state("task-1"), "running a1 plain");
}

#[test]
fn a_unary_worker_that_registers_again_keeps_its_tasks() {
    let mut world = World::new();
    world.say_hello("plain", 1, None, None);
    world.submit_one(1);
    world.say_hello("plain", 1, None, None);
    let result = Command::Report {
        worker: worker("plain"),
        session: None,
        sequence: 0,
        changes: vec![ended("task-1-a1", Cause::Exit(0))],
        full: None,
    };
    world.turn(result);
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
}

#[test]
fn a_worker_that_says_goodbye_gives_its_tasks_back_at_once() {
    let mut world = World::new();
    let session = world.hello("worker-1", 1);
    world.submit_one(1);
    world.hello("worker-2", 1);
    let bye = Command::Goodbye { worker: worker("worker-1"), session };
    assert_eq!(world.turn(bye).1, "worker-2: assign task-1-a2");
}

#[test]
fn an_attempt_that_is_never_taken_goes_elsewhere() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.hello("worker-2", 1);
    let mut passed = 0;
    while world.state("task-1") == "assigned a1 worker-1" {
        assert!(passed <= bounds::UNTAKEN_MS_MAX + bounds::UNTAKEN_QUIET_MS, "{passed}");
        world.pass(5_000);
        passed += 5_000;
        world.full("worker-1", 1, Vec::new());
        world.full("worker-2", 2, Vec::new());
    }
    assert_eq!(world.state("task-1"), "queued a2");
    assert!(passed > bounds::UNTAKEN_MS_MAX, "{passed}");
}

#[test]
fn an_attempt_that_was_just_given_again_is_taken_back_before_it_goes_elsewhere() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    let given = "worker-1: assign task-1-a1";
    for _ in 0..60 {
        assert!(world.full("worker-1", 1, Vec::new()).contains(given));
        world.pass(bounds::UNTAKEN_MS_MAX / 60);
    }
    // The last one was given a second ago: this report left before it came.
    let told = world.full("worker-1", 1, Vec::new());
    assert!(told.contains("worker-1: stop task-1-a1 Stale"), "{told}");
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    for _ in 0..2 {
        world.pass(bounds::UNTAKEN_QUIET_MS / 2);
        world.full("worker-1", 1, Vec::new());
    }
    assert_eq!(world.state("task-1"), "queued a2");
}

#[test]
fn what_was_missed_is_remembered_only_while_the_worker_should_hold_it() {
    let mut world = World::new();
    world.say_hello("plain", 1, None, None);
    world.submit_one(1);
    world.turn(heartbeat(vec![started("task-1-a1")]));
    world.turn(heartbeat(Vec::new()));
    world.pass(LEASE_MS + bounds::lease_margin_ms(LEASE_MS));
    assert_eq!(world.state("task-1"), "queued a2");
    world.cancel("task-1");
    world.turn(heartbeat(Vec::new()));
    assert!(world.core.liveness[&worker("plain")].missed.is_empty());
}

#[test]
fn a_master_that_stood_still_reads_the_reports_before_it_decides() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    world.now_ms += 60_000;
    world.core.renew_leases(world.now());
    world.pass(0);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
    world.submit_one(1);
    world.pass(bounds::INACTIVE_AFTER_MS);
    world.pass(LEASE_MS + bounds::lease_margin_ms(LEASE_MS));
    assert_eq!(world.state("task-2"), "queued a2");
}

#[test]
fn turns_that_the_store_does_not_keep_renew_no_lease() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    let until = LEASE_MS + bounds::lease_margin_ms(LEASE_MS);
    let reload = |world: &mut World| {
        let snapshot = world.core.facts().snapshot();
        world.core = world.core.reload(snapshot, world.now()).unwrap();
    };
    reload(&mut world);
    assert_eq!(world.core.standing_of(&worker("worker-1")), Standing::Active);
    for _ in 0..(until / 1000) {
        world.pass(1000);
        assert_eq!(world.state("task-1"), "running a1 worker-1");
        reload(&mut world);
    }
    // What was due in the turn that was not kept is due again.
    let before = world.core.facts().snapshot();
    world.now_ms += until % 1000;
    drop(world.core.step(world.now(), Input { from: None, command: Command::Tick }));
    assert_eq!(world.state("task-1"), "queued a2");
    world.core = world.core.reload(before, world.now()).unwrap();
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    world.pass(0);
    assert_eq!(world.state("task-1"), "queued a2");
    // A connection that ended with the turn takes nothing until there is another.
    world.hello("worker-1", 1);
    world.core.disconnect();
    assert_eq!(world.core.standing_of(&worker("worker-1")), Standing::Inactive);
}
