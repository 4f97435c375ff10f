//! Which ends are tried again, how often, and that a loss does not use up the user's retries.

use cloudai_model::{ATTEMPTS_PER_SECOND_MAX, Cause, Event, JobShape, Session, Spent};

use super::world::{World, ended, spec, started, worker};
use crate::{Command, bounds};

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

/// Loses the current attempt of `task-1` with its worker, which comes back without it.
fn crash(world: &mut World, attempt: u32, running: bool) {
    if running {
        let session = world.session("worker-1");
        world.report("worker-1", session, started(&format!("task-1-a{attempt}")));
    }
    world.hello("worker-1", 1);
}

fn spent(world: &World) -> Spent {
    world.core.facts().find_live("task-1".parse().unwrap()).unwrap().spent
}

fn end_message(world: &World) -> &str {
    let Some(Event::TaskFinished { outcome, .. }) = world.tape.0.last() else {
        panic!("{:?}", world.tape.0.last())
    };
    &outcome.message
}

#[test]
fn infra_has_a_budget_of_its_own() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    for attempt in 1..=bounds::INFRA_LOSSES_MAX + 1 {
        assert!(world.state("task-1").starts_with("assigned"), "{attempt}");
        fail(&mut world, attempt, Cause::Infra);
        // The worker is put aside meanwhile.
        world.pass(bounds::BREAKER_MS_MAX);
        world.full("worker-1", 1, Vec::new());
    }
    assert_eq!(world.state("task-1"), "failed infra");
    let want = "it was lost 17 times to engines, disks, or workers before it started, which is \
                more than the 16 that are allowed; last: ";
    assert_eq!(end_message(&world), want);
}

#[test]
fn a_task_that_kills_its_workers_is_stopped_after_its_crash_budget() {
    for crashes_max in [0, 1, 5] {
        let mut world = World::new();
        world.hello("worker-1", 1);
        let mut wants = spec(1);
        wants.retry.crashes_max = crashes_max;
        world.submit(wants, JobShape::Single);
        for attempt in 1..=crashes_max + 1 {
            assert_eq!(world.state("task-1"), format!("assigned a{attempt} worker-1"));
            crash(&mut world, attempt, true);
            wait_ms(&mut world);
        }
        assert_eq!(world.state("task-1"), "failed worker_lost");
    }
}

#[test]
fn its_end_says_how_often_and_what_the_job_allows() {
    let check = |crashes_max: u32, want: &str| {
        let mut world = World::new();
        world.hello("worker-1", 1);
        let mut wants = spec(1);
        wants.retry.crashes_max = crashes_max;
        world.submit(wants, JobShape::Single);
        for attempt in 1..=crashes_max + 1 {
            crash(&mut world, attempt, true);
            wait_ms(&mut world);
        }
        assert_eq!(end_message(&world), want);
    };
    check(
        0,
        "its worker was lost once while it ran, which is more than the 0 that the job allows \
         (crashes_max); last: its worker came back without it",
    );
    check(
        2,
        "its worker was lost 3 times while it ran, which is more than the 2 that the job allows \
         (crashes_max); last: its worker came back without it",
    );
}

#[test]
fn a_lease_that_ends_while_it_runs_is_a_crash() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    world.pass(30_000 + bounds::lease_margin_ms(30_000));
    assert_eq!(spent(&world), Spent { crashes: 1, ..Spent::default() });
}

#[test]
fn a_worker_that_is_lost_before_the_start_is_no_crash() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let mut wants = spec(1);
    wants.retry.crashes_max = 0;
    world.submit(wants, JobShape::Single);
    crash(&mut world, 1, false);
    assert_eq!(world.state("task-1"), "assigned a2 worker-1");
    assert_eq!(spent(&world), Spent { infra: 1, ..Spent::default() });
}

#[test]
fn a_worker_that_was_stopped_in_good_order_counts_against_nothing() {
    let mut world = World::new();
    let mut wants = spec(1);
    wants.retry.crashes_max = 0;
    world.hello("worker-1", 1);
    world.submit(wants, JobShape::Single);
    for attempt in 1..=2 * bounds::INFRA_LOSSES_MAX {
        let session = world.session("worker-1");
        world.report("worker-1", session, started(&format!("task-1-a{attempt}")));
        if attempt % 2 == 0 {
            // The container's end may arrive before the goodbye.
            let end = ended(&format!("task-1-a{attempt}"), Cause::WorkerLost);
            world.report("worker-1", session, end);
        }
        world.turn(Command::Goodbye { worker: worker("worker-1"), session: Session(session) });
        world.pass(bounds::BACKOFF_MS_MAX);
        world.hello("worker-1", 1);
    }
    assert!(world.state("task-1").starts_with("assigned"));
    assert_eq!(spent(&world), Spent::default());
}

/// How long the next try waits, to the millisecond.
fn wait_ms(world: &mut World) -> u64 {
    if !world.state("task-1").starts_with("queued") {
        return 0;
    }
    let due = world.core.next_deadline().unwrap().ms_since(world.now().mono);
    world.pass(due);
    world.full("worker-1", world.session("worker-1"), Vec::new());
    due
}

#[test]
fn each_kind_of_loss_waits_longer_each_time_and_a_lost_worker_not_at_first() {
    let min = bounds::BACKOFF_MS_MIN;
    let check = |what: fn(&mut World, u32), want: [u64; 4]| {
        let mut world = World::new();
        world.hello("worker-1", 1);
        let mut asked = spec(1);
        asked.retry.retries_max = 9;
        world.submit(asked, JobShape::Single);
        let waits = [1, 2, 3, 4].map(|attempt| {
            what(&mut world, attempt);
            wait_ms(&mut world)
        });
        assert_eq!(waits, want);
    };
    check(|world, attempt| fail(world, attempt, Cause::Infra), [min, 2 * min, 4 * min, 8 * min]);
    check(|world, attempt| fail(world, attempt, Cause::Exit(1)), [min, 2 * min, 4 * min, 8 * min]);
    check(|world, attempt| crash(world, attempt, true), [0, min, 2 * min, 4 * min]);
    check(|world, attempt| crash(world, attempt, false), [0, min, 2 * min, 4 * min]);
    check(|world, attempt| fail(world, attempt, Cause::WorkerLost), [0, min, 2 * min, 4 * min]);
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
fn a_stop_that_nobody_asked_for_counts_as_a_crash_once_it_ran() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let mut wants = spec(1);
    wants.retry.crashes_max = 1;
    world.submit(wants, JobShape::Single);
    for attempt in [1, 2] {
        world.report("worker-1", 1, started(&format!("task-1-a{attempt}")));
        fail(&mut world, attempt, Cause::Cancelled);
    }
    assert_eq!(world.state("task-1"), "failed worker_lost");
}

#[test]
fn a_restart_forgets_how_long_a_task_waits_and_remembers_the_loss() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    for attempt in 1..=3 {
        fail(&mut world, attempt, Cause::Infra);
        world.restart();
        let (_, sent) = world.say_hello("worker-1", 1, Some(1), Some(Vec::new()));
        assert_eq!(sent, "");
        assert_eq!(world.pass(bounds::BACKOFF_MS_MIN - 1), "");
        assert_eq!(world.pass(1), format!("worker-1: assign task-1-a{}", attempt + 1));
        assert_eq!(spent(&world), Spent { infra: attempt, ..Spent::default() });
    }
}

/// Loses the current attempt of `task-1` in one of the ways that there are.
fn lose(world: &mut World, how: usize) {
    let state = world.state("task-1");
    let attempt = state.split(['a', ' ']).find_map(|part| part.parse().ok()).unwrap();
    let session = Session(world.session("worker-1"));
    match how {
        0 => fail_under(world, attempt, Cause::Infra),
        1 => fail_under(world, attempt, Cause::Exit(1)),
        2 => crash(world, attempt, false),
        3 => crash(world, attempt, true),
        _ => {
            world.turn(Command::Goodbye { worker: worker("worker-1"), session });
            world.hello("worker-1", 1);
        }
    }
}

fn fail_under(world: &mut World, attempt: u32, cause: Cause) {
    let session = world.session("worker-1");
    world.report("worker-1", session, ended(&format!("task-1-a{attempt}"), cause));
}

/// When each attempt of a task was placed that is lost again and again as fast as it can be.
fn placed_at(ways: [usize; 3], is_restarted: bool) -> Vec<u64> {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let mut wants = spec(1);
    (wants.retry.retries_max, wants.retry.crashes_max) = (100, 100);
    world.submit(wants, JobShape::Single);
    let mut placed = Vec::new();
    for how in ways.into_iter().cycle().take(4 * ways.len()) {
        while !world.state("task-1").starts_with("assigned") {
            wait_ms(&mut world);
        }
        placed.push(world.now_ms);
        lose(&mut world, how);
        if is_restarted {
            world.restart();
            let session = world.session("worker-1");
            world.say_hello("worker-1", 1, Some(session), Some(Vec::new()));
        }
    }
    placed
}

#[test]
fn no_task_has_more_attempts_in_a_second_than_a_restore_counts() {
    let per_second = u64::from(ATTEMPTS_PER_SECOND_MAX);
    for ways in 0..125 {
        let ways = [ways / 25, ways / 5 % 5, ways % 5];
        for is_restarted in [false, true] {
            let placed = placed_at(ways, is_restarted);
            for (first, from_ms) in placed.iter().enumerate() {
                for (last, to_ms) in placed.iter().enumerate().skip(first) {
                    let (count, ran_ms) = (last - first + 1, to_ms - from_ms);
                    assert!(
                        count as u64 * 1_000 <= per_second * (ran_ms + 1_000),
                        "{count} in {ran_ms} ms, lost by {ways:?}, restarted: {is_restarted}"
                    );
                }
            }
        }
    }
}
