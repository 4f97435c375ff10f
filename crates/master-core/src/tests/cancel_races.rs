//! A cancel against everything that can happen next, in every state of a task: all pairs, none
//! sampled. Whatever comes, a cancel that was accepted wins, is remembered, and nothing runs again.

use cloudai_model::{Cause, JobShape, Session};

use super::world::{World, accepted, ended, spec, started, worker};
use crate::{Answer, Command, FullReport, Rejection, bounds};

const TASK: &str = "task-1";
const ATTEMPT: &str = "task-1-a1";

/// Brings a task to where it is cancelled. `worker-1` is there, and so is `worker-2`, which has no
/// room for it as long as `worker-1` could take it.
type State = (&'static str, fn(&mut World));

const STATES: [State; 6] = [
    ("fresh", |world| {
        register(world, 0);
        submit(world);
    }),
    ("backoff", |world| {
        register(world, 1);
        submit(world);
        report(world, Cause::Infra);
    }),
    ("requeued", |world| {
        register(world, 1);
        submit(world);
        goodbye(world);
    }),
    ("assigned", |world| {
        register(world, 1);
        submit(world);
    }),
    ("accepted", |world| {
        register(world, 1);
        submit(world);
        full(world, true, false);
    }),
    ("running", |world| {
        register(world, 1);
        submit(world);
        world.report("worker-1", session(world), started(ATTEMPT));
    }),
];

fn register(world: &mut World, cores: u64) {
    world.hello("worker-1", cores);
}

fn submit(world: &mut World) {
    let mut wants = spec(1);
    wants.retry.retries_max = 9;
    world.submit(wants, JobShape::Single);
}

fn session(world: &World) -> u64 {
    world.session("worker-1")
}

fn report(world: &mut World, cause: Cause) -> String {
    world.report("worker-1", session(world), ended(ATTEMPT, cause))
}

fn full(world: &mut World, named: bool, running: bool) -> String {
    let what = if running { started(ATTEMPT) } else { accepted(ATTEMPT) };
    let held = if named { vec![what] } else { Vec::new() };
    world.heartbeat("worker-1", session(world), FullReport { held, degraded: None })
}

fn goodbye(world: &mut World) -> String {
    let session = Session(session(world));
    world.turn(Command::Goodbye { worker: worker("worker-1"), session }).1
}

/// Whether the core knows that the container started: it must not be told otherwise.
fn is_running(world: &World) -> bool {
    world.state(TASK).starts_with("running")
}

/// What happens next, and what has become of the task in each state above, in their order:
/// `C` it has ended, cancelled; `h` its worker holds it still.
type Next = (&'static str, &'static str, fn(&mut World) -> String);

const NEXTS: [Next; 23] = [
    ("nothing", "CCChhh", |world| world.pass(0)),
    ("the backoff is over", "CCChhh", |world| world.pass(bounds::BACKOFF_MS_MIN)),
    ("accepted is reported", "CCChhh", |world| {
        world.report("worker-1", session(world), accepted(ATTEMPT))
    }),
    ("started is reported", "CCChhh", |world| {
        world.report("worker-1", session(world), started(ATTEMPT))
    }),
    ("exit 0", "CCCCCC", |world| report(world, Cause::Exit(0))),
    ("exit 1", "CCCCCC", |world| report(world, Cause::Exit(1))),
    ("oom", "CCCCCC", |world| report(world, Cause::Oom)),
    ("time-out", "CCCCCC", |world| report(world, Cause::Timeout)),
    ("no image", "CCCCCC", |world| report(world, Cause::Image)),
    ("infra", "CCCCCC", |world| report(world, Cause::Infra)),
    ("its worker was stopped", "CCCCCC", |world| report(world, Cause::WorkerLost)),
    ("cancelled", "CCCCCC", |world| report(world, Cause::Cancelled)),
    ("a heartbeat with it", "CCChhh", |world| full(world, true, is_running(world))),
    ("a heartbeat without it", "CCChhC", |world| full(world, false, false)),
    ("heartbeats without it", "CCCCCC", |world| {
        let sent = full(world, false, false);
        world.pass(bounds::UNTAKEN_QUIET_MS);
        sent + &full(world, false, false)
    }),
    ("silence beyond the lease", "CCCCCC", |world| {
        world.pass(30_000 + bounds::lease_margin_ms(30_000))
    }),
    ("goodbye", "CCCCCC", goodbye),
    ("a new process without it", "CCCCCC", |world| {
        world.say_hello("worker-1", 1, None, Some(Vec::new())).1
    }),
    ("a new process with it", "CCChhh", |world| {
        world.say_hello("worker-1", 1, None, Some(vec![started(ATTEMPT)])).1
    }),
    ("a new process with its end", "CCCCCC", |world| {
        world.say_hello("worker-1", 1, None, Some(vec![ended(ATTEMPT, Cause::Exit(0))])).1
    }),
    ("the same process again", "CCChhh", |world| {
        let session = session(world);
        world.say_hello("worker-1", 1, Some(session), Some(vec![started(ATTEMPT)])).1
    }),
    ("the master restarts", "CCChhh", |world| {
        world.restart();
        world.pass(0)
    }),
    ("a worker with room comes", "CCChhh", |world| {
        world.say_hello("worker-2", 1, None, Some(Vec::new())).1
    }),
];

/// Whether the task has ended, cancelled; one that was never placed leaves nothing behind.
fn is_cancelled(world: &World) -> bool {
    ["cancelled cancelled", "gone"].contains(&world.state(TASK).as_str())
}

/// The worker hears of the cancel, sooner or later, and stops: nothing else may come of it.
fn settle(world: &mut World) {
    if is_cancelled(world) {
        return;
    }
    let running = is_running(world);
    let sent = full(world, true, running);
    assert!(sent.contains("worker-1: stop task-1-a1 Cancelled"), "{sent}");
    let sent = report(world, Cause::Exit(0));
    assert!(sent.contains("worker-1: forget task-1-a1"), "{sent}");
    assert_eq!(world.state(TASK), "cancelled cancelled");
}

#[test]
fn a_cancel_that_was_accepted_wins_over_all_that_happens_next() {
    for (column, (state, reach)) in STATES.into_iter().enumerate() {
        for (next, want, happen) in NEXTS {
            let mut world = World::new();
            reach(&mut world);
            let (answer, _) = world.cancel(TASK);
            assert!(matches!(answer, Answer::Cancelled { .. }), "{state}: {answer:?}");
            let sent = happen(&mut world);
            assert!(!sent.contains("assign task-1"), "{state}, {next}: {sent}");
            let got = if is_cancelled(&world) { 'C' } else { 'h' };
            let want = want.chars().nth(column).unwrap();
            assert_eq!(got, want, "{state}, {next}: {}", world.state(TASK));
            settle(&mut world);
            // It stays so, through a restart and whatever a late report says.
            world.restart();
            let session = world.hello("worker-1", 1);
            let sent = world.report("worker-1", session.0, started(ATTEMPT));
            assert!(sent.contains("worker-1: stop task-1-a1 Stale"), "{state}, {next}: {sent}");
            assert!(is_cancelled(&world), "{state}, {next}: {}", world.state(TASK));
        }
    }
}

#[test]
fn a_cancel_that_comes_second_finds_an_end_or_wins() {
    for (state, reach) in STATES {
        for (next, _, happen) in NEXTS {
            let mut world = World::new();
            reach(&mut world);
            happen(&mut world);
            let before = world.state(TASK);
            let over = ["succeeded", "failed"].iter().any(|end| before.starts_with(end));
            let (answer, sent) = world.cancel(TASK);
            assert!(!sent.contains("assign"), "{state}, {next}: {sent}");
            if over {
                assert_eq!(answer, Answer::Rejected(Rejection::NotLive), "{state}, {next}");
                assert_eq!(world.state(TASK), before, "{state}, {next}");
                continue;
            }
            assert!(matches!(answer, Answer::Cancelled { .. }), "{state}, {next}: {answer:?}");
            // Whoever holds it now stops it.
            for name in ["worker-1", "worker-2"] {
                let Some(known) = world.core.facts().workers.get(&worker(name)) else { continue };
                let session = known.record.session.0;
                for attempt in crate::steps::held_by(&world.core, &worker(name)) {
                    let end = ended(&attempt.to_string(), Cause::Exit(0));
                    world.report(name, session, end);
                }
            }
            assert!(is_cancelled(&world), "{state}, {next}: {}", world.state(TASK));
        }
    }
}

#[test]
fn a_second_cancel_only_says_stop_again() {
    for (state, reach) in STATES {
        let mut world = World::new();
        reach(&mut world);
        world.cancel(TASK);
        let events = world.tape.0.len();
        let (answer, sent) = world.cancel(TASK);
        if is_cancelled(&world) {
            assert_eq!(answer, Answer::Rejected(Rejection::NotLive), "{state}");
        } else {
            assert_eq!(answer, Answer::Cancelled { ended: 0, stopping: 1 }, "{state}");
            assert_eq!(sent, "worker-1: stop task-1-a1 Cancelled", "{state}");
        }
        assert_eq!(world.tape.0.len(), events, "{state}");
    }
}
