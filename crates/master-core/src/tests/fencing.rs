//! Reports that are not of the current attempt, worker and session change nothing.

use cloudai_model::{AttemptId, Cause, Event, Session, Timestamp};
use cloudai_scheduler::Standing;

use super::world::{World, accepted, ended, ended_after, hello_of, started, worker};
use crate::{Answer, Command, FullReport, Rejection, StreamNo, WorkerHello, bounds};

#[test]
fn a_report_of_an_old_session_counts_for_nothing() {
    let mut world = World::new();
    world.hello("worker-1", 2);
    world.submit_one(1);
    world.hello("worker-1", 2);
    // The new process did not have it: it runs again, as a new attempt.
    assert_eq!(world.state("task-1"), "assigned a2 worker-1");
    let (answer, sent) = world.turn(Command::Report {
        worker: worker("worker-1"),
        session: Some(Session(1)),
        sequence: 9,
        changes: vec![ended("task-1-a1", Cause::Exit(0))],
        full: None,
    });
    assert_eq!(answer, Answer::Rejected(Rejection::Superseded(worker("worker-1"))));
    assert_eq!((sent.as_str(), world.core.stale_reports), ("", 1));
    assert_eq!(world.state("task-1"), "assigned a2 worker-1");
}

#[test]
fn a_report_without_a_session_counts_for_nothing_from_a_worker_that_has_one() {
    let mut world = World::new();
    world.hello("worker-1", 2);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    world.now_ms += bounds::INACTIVE_AFTER_MS;
    let old = |changes, full| {
        let (worker, session) = (worker("worker-1"), None);
        Command::Report { worker, session, sequence: 0, changes, full }
    };
    let nothing = Some(FullReport { held: Vec::new(), degraded: None });
    for command in [old(Vec::new(), nothing), old(vec![ended("task-1-a1", Cause::Exit(0))], None)] {
        let (answer, sent) = world.turn(command);
        assert_eq!(answer, Answer::Rejected(Rejection::NotRegistered(worker("worker-1"))));
        assert_eq!(sent, "");
    }
    assert_eq!(world.core.stale_reports, 2);
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    // Nor is it a sign of life.
    world.pass(0);
    assert_eq!(world.standing("worker-1"), Standing::Inactive);
}

#[test]
fn a_stale_attempt_is_stopped_and_its_end_forgotten() {
    let mut world = World::new();
    world.hello("worker-1", 2);
    world.submit_one(1);
    world.say_hello("worker-1", 2, None, Some(Vec::new()));
    let sent = world.report("worker-1", 2, started("task-1-a1"));
    assert_eq!(sent, "worker-1: stop task-1-a1 Stale, worker-1: ack 1");
    let sent = world.report("worker-1", 2, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(sent, "worker-1: forget task-1-a1, worker-1: ack 1");
    assert_eq!(world.state("task-1"), "assigned a2 worker-1");
}

#[test]
fn another_workers_attempt_cannot_be_ended() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 1);
    world.submit_one(1);
    world.report("worker-2", 2, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    for nonsense in ["task-99-a1", "task-1.5-a1", "task-1-a7"] {
        world.report("worker-1", 1, ended(nonsense, Cause::Exit(0)));
    }
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    assert_eq!(world.core.stale_reports, 4);
}

#[test]
fn doubled_and_late_reports_are_no_ops() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    let events = world.tape.0.len();
    world.report("worker-1", 1, started("task-1-a1"));
    world.report("worker-1", 1, accepted("task-1-a1"));
    assert_eq!(world.tape.0.len(), events);
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(3)));
    world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.state("task-1"), "failed exit(3)");
}

#[test]
fn an_end_tells_of_its_start_when_that_word_was_lost() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.report("worker-1", 1, ended_after("task-1-a1", Some(Timestamp(4)), Cause::Exit(0)));
    let starts = world.tape.0.iter().filter_map(|event| match event {
        Event::AttemptStarted { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(starts.collect::<Vec<_>>(), [Timestamp(4)]);
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
}

#[test]
fn an_unknown_worker_is_told_to_register() {
    let mut world = World::new();
    let report = |session| Command::Report {
        worker: worker("ghost"),
        session,
        sequence: 1,
        changes: Vec::new(),
        full: None,
    };
    let want = Answer::Rejected(Rejection::NotRegistered(worker("ghost")));
    assert_eq!(world.turn(report(None)).0, want);
    assert_eq!(world.turn(report(Some(Session(5)))).0, want);
    assert_eq!(world.say_hello("ghost", 1, Some(5), Some(Vec::new())).0, want);
}

#[test]
fn a_restarted_worker_keeps_what_it_adopted() {
    let mut world = World::new();
    world.hello("worker-1", 2);
    world.submit_one(1);
    world.submit_one(1);
    world.report("worker-1", 1, started("task-1-a1"));
    let (answer, _) = world.say_hello("worker-1", 2, None, Some(vec![started("task-1-a1")]));
    assert_eq!(answer, Answer::Welcome(Session(2)));
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    assert_eq!(world.state("task-2"), "assigned a2 worker-1");
    world.report("worker-1", 2, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
}

#[test]
fn the_process_that_was_replaced_is_told_so() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-1", 1);
    let (answer, _) = world.say_hello("worker-1", 1, Some(1), Some(Vec::new()));
    assert_eq!(answer, Answer::Rejected(Rejection::Superseded(worker("worker-1"))));
}

#[test]
fn each_of_the_four_numbers_is_checked_for_itself() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.hello("worker-2", 1);
    world.submit_one(1);
    let check = |attempt: &str, name: &str, session: u64| {
        let attempt: AttemptId = attempt.parse().unwrap();
        crate::steps::is_current(&world.core, attempt, &worker(name), Session(session))
    };
    assert!(check("task-1-a1", "worker-1", 1));
    assert!(!check("task-2-a1", "worker-1", 1));
    assert!(!check("task-1-a2", "worker-1", 1));
    assert!(!check("task-1-a1", "worker-2", 1));
    assert!(!check("task-1-a1", "worker-1", 2));
}

#[test]
fn a_session_that_this_history_never_gave_registers_anew_and_is_not_told_to_end() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    let unknown = || Answer::Rejected(Rejection::NotRegistered(worker("worker-1")));
    let older = || Answer::Rejected(Rejection::Superseded(worker("worker-1")));
    world.hello("worker-1", 1);
    for (session, want) in [(1, older()), (3, unknown())] {
        let (answer, _) = world.say_hello("worker-1", 1, Some(session), Some(Vec::new()));
        assert_eq!(answer, want, "a hello of session {session}");
        let stale = world.core.stale_reports;
        let report = Command::Report {
            worker: worker("worker-1"),
            session: Some(Session(session)),
            sequence: 1,
            changes: Vec::new(),
            full: None,
        };
        assert_eq!(world.turn(report).0, want, "a report of session {session}");
        let goodbye = Command::Goodbye { worker: worker("worker-1"), session: Session(session) };
        assert_eq!(world.turn(goodbye).0, want, "a goodbye of session {session}");
        assert_eq!(world.core.stale_reports, stale + 2);
    }
    let (answer, _) = world.say_hello("worker-9", 1, Some(1), Some(Vec::new()));
    assert_eq!(answer, Answer::Rejected(Rejection::NotRegistered(worker("worker-9"))));
    let goodbye = Command::Goodbye { worker: worker("worker-9"), session: Session(1) };
    assert_eq!(world.turn(goodbye).0, answer);
}

fn hello_over(stream: u64, session: Option<u64>, held: &[&str]) -> Command {
    let held = held.iter().map(|attempt| accepted(attempt)).collect();
    let stream = Some(StreamNo(stream));
    Command::Hello(WorkerHello { stream, ..hello_of("worker-1", 1, session, Some(held)) })
}

#[test]
fn a_hello_over_an_older_stream_is_refused() {
    let welcome = |session| Answer::Welcome(Session(session));
    let late = || Answer::Rejected(Rejection::LateHello(worker("worker-1")));
    let mut world = World::new();
    assert_eq!(world.turn(hello_over(2, None, &[])).0, welcome(1));
    world.submit_one(1);
    for (stream, session) in [(1, None), (1, Some(1))] {
        let stale = world.core.stale_reports;
        assert_eq!(world.turn(hello_over(stream, session, &[])), (late(), String::new()));
        assert_eq!(world.core.stale_reports, stale + 1);
    }
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    // The store did not keep a turn: the connections, and what comes over them, are still there.
    let snapshot = world.core.facts().snapshot();
    world.core = world.core.reload(snapshot, world.now()).unwrap();
    assert_eq!(world.turn(hello_over(1, None, &[])).0, late());
    for stream in [2, 3] {
        assert_eq!(world.turn(hello_over(stream, Some(1), &["task-1-a1"])).0, welcome(1));
    }
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
}

#[test]
fn a_hello_of_a_killed_process_does_not_put_the_next_one_out() {
    let mut world = World::new();
    assert_eq!(world.turn(hello_over(1, None, &[])).0, Answer::Welcome(Session(1)));
    // The process comes back over stream 2 and is killed; what it said is still under way.
    let of_the_dead = |session| hello_over(2, session, &[]);
    assert_eq!(world.turn(hello_over(3, None, &[])).0, Answer::Welcome(Session(2)));
    world.submit_one(1);
    world.report("worker-1", 2, started("task-1-a1"));
    let late = Answer::Rejected(Rejection::LateHello(worker("worker-1")));
    for session in [None, Some(1)] {
        assert_eq!(world.turn(of_the_dead(session)), (late.clone(), String::new()));
    }
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    assert_eq!(world.session("worker-1"), 2);
}

#[test]
fn the_order_of_hellos_is_that_of_one_worker() {
    let mut world = World::new();
    let other = |stream, session| {
        let stream = Some(StreamNo(stream));
        Command::Hello(WorkerHello { stream, ..hello_of("worker-2", 1, session, Some(vec![])) })
    };
    assert_eq!(world.turn(hello_over(7, None, &[])).0, Answer::Welcome(Session(1)));
    assert_eq!(world.turn(other(3, None)).0, Answer::Welcome(Session(2)));
    // A hello that was not welcomed puts no other one off.
    let unknown = Answer::Rejected(Rejection::NotRegistered(worker("worker-2")));
    assert_eq!(world.turn(other(9, Some(5))).0, unknown);
    assert_eq!(world.turn(other(4, Some(2))).0, Answer::Welcome(Session(2)));
}
