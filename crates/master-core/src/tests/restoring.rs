//! A store that was put back from a backup: whatever was given after the backup is stale.

use cloudai_model::{AttemptNo, Cause, Numbers, Session, Snapshot};

use super::world::{World, accepted, ended, started, worker};
use crate::{Answer, Command, Rejection, Settings, bounds};

/// The numbers of a store that is put back at once.
fn at_once(backup: &Snapshot) -> Numbers {
    let live = backup.jobs.values().flat_map(|job| job.live.values());
    let highest = live.map(|task| task.attempt).max();
    backup.numbers.after_loss(highest, 0).unwrap()
}

/// The world after `backup` was put back.
fn restored(mut backup: Snapshot) -> World {
    backup.numbers = at_once(&backup);
    World::of(backup, Settings::default())
}

/// The first session of the history that begins with the restore.
const NEW: u64 = (1 << 32) + 1;

#[test]
fn what_ran_at_the_backup_goes_on_under_a_new_session() {
    let mut before = World::new();
    before.hello("worker-1", 2);
    before.submit_one(1);
    before.report("worker-1", 1, started("task-1-a1"));
    let mut after = restored(before.core.facts().snapshot());
    // The same process under the same session: it belongs to the history that was cut off.
    let held = || Some(vec![started("task-1-a1")]);
    let (answer, _) = after.say_hello("worker-1", 2, Some(1), held());
    assert_eq!(answer, Answer::Rejected(Rejection::NotRegistered(worker("worker-1"))));
    let (answer, sent) = after.say_hello("worker-1", 2, None, held());
    assert_eq!(answer, Answer::Welcome(Session(NEW)));
    assert_eq!(sent, "");
    assert_eq!(after.state("task-1"), "running a1 worker-1");
    after.report("worker-1", NEW, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(after.state("task-1"), "succeeded exit(0)");
}

#[test]
fn what_the_backup_does_not_know_is_stopped_and_no_number_is_given_twice() {
    let mut before = World::new();
    before.hello("worker-1", 2);
    before.submit_one(2);
    before.submit_one(1);
    let backup = before.core.facts().snapshot();
    // All of this is lost: an end, the first attempt of task-2, a job.
    before.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    before.submit_one(1);
    assert_eq!(before.state("task-2"), "assigned a1 worker-1");
    assert_eq!(before.state("task-3"), "assigned a1 worker-1");
    let mut after = restored(backup);
    let held = vec![accepted("task-2-a1"), started("task-3-a1")];
    let (_, sent) = after.say_hello("worker-1", 2, None, Some(held));
    // task-1 is placed anew: that it had ended is not known any more.
    let sent: Vec<&str> = sent.split(", ").collect();
    assert_eq!(
        sent,
        [
            "worker-1: stop task-2-a1 Stale",
            "worker-1: stop task-3-a1 Stale",
            "worker-1: assign task-1-a18",
        ]
    );
    after.report("worker-1", NEW, ended("task-1-a18", Cause::Exit(0)));
    assert_eq!(after.state("task-2"), "assigned a18 worker-1");
    after.report("worker-1", NEW, ended("task-2-a1", Cause::Exit(0)));
    assert_eq!(after.state("task-2"), "assigned a18 worker-1");
    after.submit_one(1);
    assert_eq!(after.core.facts().numbers.last_job, 40_003);
}

#[test]
fn two_processes_of_one_worker_are_told_apart_across_a_restore() {
    let mut before = World::new();
    before.hello("worker-1", 1);
    let backup = before.core.facts().snapshot();
    before.hello("worker-1", 1);
    let mut after = restored(backup);
    after.hello("worker-1", 1);
    for session in [1, 2] {
        let (answer, _) = after.say_hello("worker-1", 1, Some(session), Some(Vec::new()));
        assert_eq!(answer, Answer::Rejected(Rejection::Superseded(worker("worker-1"))));
    }
    let (answer, _) = after.say_hello("worker-1", 1, Some(NEW), Some(Vec::new()));
    assert_eq!(answer, Answer::Welcome(Session(NEW)));
}

#[test]
fn a_retry_after_a_restore_leaves_out_what_may_have_been_given() {
    let mut before = World::new();
    before.hello("worker-1", 1);
    before.submit_one(1);
    before.hello("worker-1", 1);
    assert_eq!(before.state("task-1"), "assigned a2 worker-1");
    let backup = before.core.facts().snapshot();
    assert_eq!(at_once(&backup).attempt_floor, AttemptNo(2).0 + 16);
    let mut after = restored(backup);
    after.hello("worker-1", 1);
    after.pass(bounds::BACKOFF_MS_MIN);
    assert_eq!(after.state("task-1"), "assigned a19 worker-1");
    after.restart();
    after.hello("worker-1", 1);
    after.pass(2 * bounds::BACKOFF_MS_MIN);
    assert_eq!(after.state("task-1"), "assigned a20 worker-1");
}

#[test]
fn a_stop_after_a_restore_waits_no_longer_than_before_it() {
    let mut before = World::new();
    before.hello("worker-1", 1);
    before.submit_one(1);
    let mut after = restored(before.core.facts().snapshot());
    after.say_hello("worker-1", 1, None, Some(vec![accepted("task-1-a1")]));
    let stop = |world: &mut World| {
        let session = Session(world.session("worker-1"));
        world.turn(Command::Goodbye { worker: worker("worker-1"), session });
        world.hello("worker-1", 1);
    };
    for attempt in [18, 19] {
        stop(&mut after);
        assert_eq!(after.state("task-1"), format!("assigned a{attempt} worker-1"));
    }
    stop(&mut after);
    assert_eq!(after.state("task-1"), "queued a20");
    after.pass(bounds::BACKOFF_MS_MIN);
    assert_eq!(after.state("task-1"), "assigned a20 worker-1");
}
