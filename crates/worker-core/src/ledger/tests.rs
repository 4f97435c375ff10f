//! One harness: a script of inputs, and what came of each as text. After every step the whole
//! ledger is checked.

use std::fmt::Write as _;

use cloudai_model::limits;
use proptest::prelude::*;

use super::*;

struct World {
    ledger: Ledger,
    now: Monotonic,
    started: BTreeSet<AttemptId>,
    text: String,
}

fn id(text: &str) -> AttemptId {
    text.parse().unwrap()
}

fn spec(lease_ms: u64) -> Arc<TaskSpec> {
    let mut spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS);
    spec.retry.lease_ms = lease_ms;
    Arc::new(spec)
}

fn ok() -> Outcome {
    Outcome::new(Cause::Exit(0), "")
}

fn told(report: &AttemptReport) -> String {
    let what = match &report.what {
        ReportWhat::Accepted => "accepted".to_owned(),
        ReportWhat::Started(_) => "started".to_owned(),
        ReportWhat::Ended { outcome, .. } => format!("ended {}", outcome.cause),
    };
    format!("{} {what}", report.attempt)
}

impl World {
    fn new(attempts_max: usize) -> Self {
        let mut world = Self {
            ledger: Ledger::new(LedgerConfig { attempts_max }),
            now: Monotonic(0),
            started: BTreeSet::new(),
            text: String::new(),
        };
        world.ledger.begin_stream();
        world.step(Input::Welcomed { session: Session(1), hello_sent_at: Monotonic(0) });
        world
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.ledger.step(self.now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Start { attempt, .. } => {
                    assert!(self.started.insert(attempt), "{attempt} started twice");
                    writeln!(self.text, "start {attempt}").unwrap();
                }
                Effect::Stop { attempt, cause, .. } => {
                    writeln!(self.text, "stop {attempt} {cause}").unwrap();
                }
                Effect::Drop { attempt } => writeln!(self.text, "drop {attempt}").unwrap(),
                Effect::Refuse { attempt, reason } => {
                    writeln!(self.text, "refuse {attempt} {reason:?}").unwrap();
                }
            }
        }
        self.check_whole();
    }

    fn check_whole(&self) {
        let ledger = &self.ledger;
        let live = ledger.held.values().filter(|entry| entry.is_live()).count();
        assert_eq!(ledger.live_count(), live);
        assert!(ledger.held.len() <= ledger.config.attempts_max);
        assert!(ledger.news.iter().all(|attempt| ledger.held.contains_key(attempt)));
        assert_eq!(ledger.news.len(), ledger.newsworthy.len());
        assert!(ledger.forgotten.len() <= FORGOTTEN_LEN_MAX);
        let leased = ledger.held.values().filter(|entry| entry.has_lease()).count();
        assert_eq!(ledger.next_deadline().is_some(), leased > 0);
    }

    /// `assign`, `stop`, `stale`, `forget`, `started`, `ended`, `delivered` and an attempt;
    /// `ack` and a number; `at` and a time; `report`, `full`, `stream`, `shutdown`.
    fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "report" => self.report(false),
                "full" => self.report(true),
                "stream" => {
                    let held = self.ledger.begin_stream();
                    let held = held.iter().map(told).collect::<Vec<_>>().join(", ");
                    writeln!(self.text, "hello: {held}").unwrap();
                }
                "at" => {
                    self.now = Monotonic(rest.parse().unwrap());
                    self.step(Input::Tick);
                }
                _ => self.step(input(word, rest)),
            }
        }
    }

    fn report(&mut self, full: bool) {
        let outgoing = self.ledger.take_report(self.now, full);
        let changes = outgoing.changes.iter().map(told).collect::<Vec<_>>().join(", ");
        let mut line = format!("report {}: {changes}", outgoing.sequence).trim_end().to_owned();
        if let Some(full) = outgoing.full {
            let held = full.iter().map(told).collect::<Vec<_>>().join(", ");
            line = format!("{line} | held: {held}").trim_end().to_owned();
        }
        writeln!(self.text, "{line}").unwrap();
    }
}

fn input(word: &str, rest: &str) -> Input {
    match word {
        "assign" => {
            let (attempt, lease_ms) = rest.split_once(" lease ").unwrap_or((rest, "30000"));
            Input::Assign { attempt: id(attempt), spec: spec(lease_ms.parse().unwrap()) }
        }
        "stop" => Input::Stop { attempt: id(rest), reason: StopReason::Cancelled },
        "stale" => Input::Stop { attempt: id(rest), reason: StopReason::Stale },
        "forget" => Input::Forget { attempt: id(rest) },
        "started" => Input::Started { attempt: id(rest), at: Timestamp(1) },
        "ended" => Input::Ended { attempt: id(rest), outcome: ok(), at: Timestamp(2) },
        "delivered" => Input::Delivered { attempt: id(rest) },
        "ack" => Input::Acknowledged { sequence: rest.parse().unwrap() },
        "shutdown" => Input::ShutDown,
        _ => panic!("no such word: {word}"),
    }
}

#[track_caller]
fn check(script: &str, want: &str) {
    let mut world = World::new(4);
    world.run(script);
    let want = want.lines().map(str::trim).filter(|line| !line.is_empty());
    assert_eq!(world.text.trim_end(), want.collect::<Vec<_>>().join("\n"));
}

#[test]
fn an_attempt_goes_from_assign_to_forget() {
    check(
        "assign task-1-a1
         started task-1-a1
         report
         ended task-1-a1
         report
         delivered task-1-a1
         full
         forget task-1-a1
         full",
        "start task-1-a1
         report 1: task-1-a1 started
         report 2:
         report 3: task-1-a1 ended exit(0) | held: task-1-a1 ended exit(0)
         drop task-1-a1
         report 4: | held:",
    );
}

#[test]
fn an_end_is_not_told_before_its_log_is_delivered() {
    check(
        "assign task-1-a1
         ended task-1-a1
         full
         delivered task-1-a1
         full",
        "start task-1-a1
         report 1: | held: task-1-a1 accepted
         report 2: task-1-a1 ended exit(0) | held: task-1-a1 ended exit(0)",
    );
}

#[test]
fn a_doubled_assign_is_a_no_op() {
    check(
        "assign task-1-a1
         assign task-1-a1
         ended task-1-a1
         assign task-1-a1
         delivered task-1-a1
         assign task-1-a1",
        "start task-1-a1",
    );
}

#[test]
fn a_forgotten_or_older_attempt_is_refused() {
    check(
        "assign task-1-a2
         assign task-1-a1
         ended task-1-a2
         delivered task-1-a2
         forget task-1-a2
         assign task-1-a2
         assign task-1-a1
         assign task-1-a3",
        "start task-1-a2
         refuse task-1-a1 Outdated
         drop task-1-a2
         refuse task-1-a2 Outdated
         refuse task-1-a1 Outdated
         start task-1-a3",
    );
}

#[test]
fn a_cancelled_attempt_is_stopped_once_and_its_end_is_told() {
    check(
        "assign task-1-a1
         stop task-1-a1
         stop task-1-a1
         ended task-1-a1
         delivered task-1-a1
         stop task-1-a1
         report",
        "start task-1-a1
         stop task-1-a1 cancelled
         report 1: task-1-a1 ended exit(0)",
    );
}

#[test]
fn a_stale_attempt_is_forgotten_without_a_word_once_it_is_gone() {
    check(
        "assign task-1-a1
         assign task-2-a1
         assign task-3-a1
         stale task-1-a1
         ended task-1-a1
         ended task-2-a1
         stale task-2-a1
         ended task-3-a1
         delivered task-3-a1
         stale task-3-a1
         stale task-9-a1
         full",
        "start task-1-a1
         start task-2-a1
         start task-3-a1
         stop task-1-a1 worker_lost
         drop task-1-a1
         drop task-2-a1
         drop task-3-a1
         report 1: | held:",
    );
}

/// The graces of the stops that come of an input, in milliseconds.
fn graces(ledger: &mut Ledger, now: u64, input: Input) -> Vec<u64> {
    let mut effects = Vec::new();
    ledger.step(Monotonic(now), input, &mut effects);
    let grace = |effect| match effect {
        Effect::Stop { grace_ms, .. } => Some(grace_ms),
        _ => None,
    };
    effects.into_iter().filter_map(grace).collect()
}

#[test]
fn a_stop_is_over_before_the_master_may_place_the_task_again() {
    let begin = || {
        let mut world = World::new(4);
        world.run("assign task-1-a1 lease 15000");
        world.ledger
    };
    let by_user = Input::Stop { attempt: id("task-1-a1"), reason: StopReason::Cancelled };
    assert_eq!(graces(&mut begin(), 14_000, by_user), [10_000]);
    assert_eq!(graces(&mut begin(), 15_000, Input::Tick), [LEASE_END_GRACE_MS_MAX]);
    let stale = Input::Stop { attempt: id("task-1-a1"), reason: StopReason::Stale };
    assert_eq!(graces(&mut begin(), 0, stale), [LEASE_END_GRACE_MS_MAX]);
}

#[test]
fn a_shutdown_gives_the_whole_grace_while_the_master_renews_the_lease() {
    let mut world = World::new(4);
    world.run("assign task-1-a1 lease 15000");
    let ledger = &mut world.ledger;
    assert_eq!(graces(ledger, 14_000, Input::ShutDown), [10_000]);
    let effects = &mut Vec::new();
    assert_eq!(ledger.take_report(Monotonic(14_500), true).sequence, 1);
    ledger.step(Monotonic(14_600), Input::Acknowledged { sequence: 1 }, effects);
    assert_eq!(ledger.next_deadline(), Some(Monotonic(29_500)));
    assert_eq!(graces(ledger, 29_499, Input::Tick), [0; 0]);
    // The master was away since.
    assert_eq!(graces(ledger, 29_500, Input::Tick), [LEASE_END_GRACE_MS_MAX]);
    assert_eq!(graces(ledger, 30_000, Input::Tick), [0; 0]);
    assert_eq!(ledger.next_deadline(), None);
    // A lease that was over before is acted upon as well.
    let mut world = World::new(4);
    world.run("assign task-1-a1 lease 15000");
    assert_eq!(graces(&mut world.ledger, 15_000, Input::ShutDown), [10_000]);
    assert_eq!(graces(&mut world.ledger, 15_000, Input::Tick), [LEASE_END_GRACE_MS_MAX]);
}

#[test]
fn a_stop_with_less_time_shortens_the_grace_of_an_earlier_one_and_no_other_does() {
    let by_user = || Input::Stop { attempt: id("task-1-a1"), reason: StopReason::Cancelled };
    let stale = || Input::Stop { attempt: id("task-1-a1"), reason: StopReason::Stale };
    let forget = || Input::Forget { attempt: id("task-1-a1") };
    for hurried in [stale(), forget()] {
        for first in [by_user(), Input::ShutDown] {
            let mut world = World::new(4);
            world.run("assign task-1-a1 lease 15000");
            assert_eq!(graces(&mut world.ledger, 0, first), [10_000]);
            for input in [by_user(), Input::ShutDown, Input::Tick] {
                assert_eq!(graces(&mut world.ledger, 9_000, input), [0; 0]);
            }
            assert_eq!(graces(&mut world.ledger, 9_000, hurried.clone()), [LEASE_END_GRACE_MS_MAX]);
            for input in [by_user(), stale(), forget(), Input::ShutDown, Input::Tick] {
                assert_eq!(graces(&mut world.ledger, 90_000, input), [0; 0]);
            }
        }
    }
}

#[test]
fn what_the_master_forgets_while_it_runs_is_stopped() {
    check(
        "assign task-1-a1
         forget task-1-a1
         ended task-1-a1
         forget task-1-a1",
        "start task-1-a1
         stop task-1-a1 worker_lost
         drop task-1-a1",
    );
}

#[test]
fn an_attempt_without_word_from_the_master_is_stopped_when_its_lease_ends() {
    check(
        "assign task-1-a1
         assign task-2-a1 lease 60000
         at 29999
         at 30000
         at 40000
         at 60000
         ended task-1-a1
         delivered task-1-a1
         report",
        "start task-1-a1
         start task-2-a1
         stop task-1-a1 cancelled
         stop task-2-a1 cancelled
         report 1: task-1-a1 ended exit(0)",
    );
}

#[test]
fn a_lease_counts_from_when_the_acknowledged_report_was_sent() {
    check(
        "assign task-1-a1
         at 5000
         full
         at 20000
         full
         at 28000
         ack 1
         at 34999
         at 35000",
        "start task-1-a1
         report 1: | held: task-1-a1 accepted
         report 2: | held: task-1-a1 accepted
         stop task-1-a1 cancelled",
    );
}

#[test]
fn an_acknowledgement_of_an_older_stream_renews_nothing() {
    check(
        "assign task-1-a1
         at 10000
         full
         stream
         ack 1
         at 30000",
        "start task-1-a1
         report 1: | held: task-1-a1 accepted
         hello: task-1-a1 accepted
         stop task-1-a1 cancelled",
    );
}

#[test]
fn a_new_stream_begins_with_everything_and_no_old_news() {
    check(
        "assign task-1-a1
         assign task-2-a1
         started task-1-a1
         report
         ended task-2-a1
         delivered task-2-a1
         stream
         report
         ended task-1-a1
         delivered task-1-a1
         report",
        "start task-1-a1
         start task-2-a1
         report 1: task-1-a1 started
         hello: task-1-a1 started, task-2-a1 ended exit(0)
         report 1:
         report 2: task-1-a1 ended exit(0)",
    );
}

#[test]
fn the_ledger_is_bounded_and_says_no_at_its_bound() {
    check(
        "assign task-1-a1
         assign task-2-a1
         assign task-3-a1
         assign task-4-a1
         assign task-5-a1
         ended task-1-a1
         delivered task-1-a1
         assign task-5-a1
         forget task-1-a1
         assign task-5-a1
         assign task-6-a1",
        "start task-1-a1
         start task-2-a1
         start task-3-a1
         start task-4-a1
         refuse task-5-a1 Full
         refuse task-5-a1 Outdated
         drop task-1-a1
         refuse task-5-a1 Outdated
         start task-6-a1",
    );
}

#[test]
fn a_shutdown_stops_everything_and_takes_nothing_new() {
    check(
        "assign task-1-a1
         assign task-2-a1
         stop task-2-a1
         shutdown
         assign task-3-a1",
        "start task-1-a1
         start task-2-a1
         stop task-2-a1 cancelled
         stop task-1-a1 worker_lost
         refuse task-3-a1 ShuttingDown",
    );
}

#[test]
fn a_result_is_owed_from_its_end_until_the_master_forgets_it() {
    let mut world = World::new(4);
    let mut owed = |script| {
        world.run(script);
        world.ledger.owed_count()
    };
    assert_eq!(owed("assign task-1-a1\nassign task-2-a1"), 0);
    assert_eq!(owed("shutdown\nended task-1-a1"), 1);
    assert_eq!(owed("delivered task-1-a1\nreport\nack 1"), 1);
    assert_eq!(owed("forget task-1-a1"), 0);
    let stopped = Outcome::new(Cause::WorkerLost, "");
    let attempt = id("task-2-a1");
    world.step(Input::Ended { attempt, outcome: stopped, at: Timestamp(2) });
    // That it was stopped is not owed; its log is on its way all the same.
    let counts = |ledger: &Ledger| (ledger.owed_count(), ledger.undelivered_count());
    assert_eq!(counts(&world.ledger), (0, 1));
    world.step(Input::Delivered { attempt });
    assert_eq!((counts(&world.ledger), world.ledger.held_count()), ((0, 0), 1));
}

#[test]
fn nonsense_about_attempts_that_are_not_held_changes_nothing() {
    check(
        "started task-1-a1
         ended task-1-a1
         delivered task-1-a1
         stop task-1-a1
         forget task-1-a1
         ack 99
         report",
        "report 1:",
    );
}

#[test]
fn forgotten_attempts_are_remembered_up_to_a_bound() {
    let mut world = World::new(4);
    for job in 0..=FORGOTTEN_LEN_MAX as u64 {
        let attempt = AttemptId { task: TaskId::single(job), no: AttemptNo(1) };
        world.step(Input::Assign { attempt, spec: spec(30_000) });
        world.step(Input::Ended { attempt, outcome: ok(), at: Timestamp(0) });
        world.step(Input::Stop { attempt, reason: StopReason::Stale });
    }
    assert_eq!(world.ledger.forgotten.len(), FORGOTTEN_LEN_MAX);
    assert_eq!(world.ledger.latest_forgotten.len(), FORGOTTEN_LEN_MAX);
}

#[test]
fn a_restored_ledger_goes_on_with_what_runs_and_starts_nothing_again() {
    let held = |attempt: &str, what| Restored {
        report: AttemptReport { attempt: id(attempt), what },
        spec: spec(30_000),
    };
    let ended = ReportWhat::Ended { started_at: None, outcome: ok(), at: Timestamp(5) };
    let attempts =
        vec![held("task-1-a1", ReportWhat::Started(Timestamp(1))), held("task-2-a1", ended)];
    let config = LedgerConfig { attempts_max: 4 };
    let lease = LeaseTimes { renewed_at: Monotonic(1000), ask_until: Monotonic(0) };
    let mut world = World::new(4);
    world.ledger = Ledger::restore(config, lease, attempts);
    world.run(
        "stream
         assign task-1-a1
         delivered task-2-a1
         report
         at 30999
         at 31000",
    );
    let want = "hello: task-1-a1 started, task-2-a1 accepted\n\
                report 1: task-2-a1 ended exit(0)\nstop task-1-a1 cancelled\n";
    assert_eq!(world.text, want);
}

#[test]
fn a_lease_that_is_over_at_a_restart_is_asked_for_before_it_ends_anything() {
    let started = ReportWhat::Started(Timestamp(1));
    let report = AttemptReport { attempt: id("task-1-a1"), what: started };
    let lease = LeaseTimes { renewed_at: Monotonic(1000), ask_until: Monotonic(70_000) };
    let restored = || {
        let config = LedgerConfig { attempts_max: 4 };
        let restored = Restored { report: report.clone(), spec: spec(30_000) };
        let mut world = World::new(4);
        world.ledger = Ledger::restore(config, lease, vec![restored]);
        world.now = Monotonic(60_000);
        world
    };
    let mut unheard = restored();
    unheard.run("at 69999\nat 70000");
    assert_eq!(unheard.text, "stop task-1-a1 cancelled\n");
    let mut heard = restored();
    heard.step(Input::Welcomed { session: Session(2), hello_sent_at: Monotonic(65_000) });
    heard.run("at 94999\nat 95000");
    assert_eq!(heard.text, "stop task-1-a1 cancelled\n");
}

proptest! {
    #[test]
    fn no_order_of_inputs_breaks_the_ledger(
        steps in prop::collection::vec((0_u8..10, 0_u64..6, 1_u32..4, 0_u64..20_000), 0..200),
    ) {
        let mut world = World::new(4);
        for (kind, job, no, passed_ms) in steps {
            let attempt = AttemptId { task: TaskId::single(job), no: AttemptNo(no) };
            world.now = world.now.plus_ms(passed_ms);
            let input = match kind {
                0 | 1 => Input::Assign { attempt, spec: spec(limits::LEASE_MS_MIN + job) },
                2 => Input::Stop { attempt, reason: StopReason::Cancelled },
                3 => Input::Stop { attempt, reason: StopReason::Stale },
                4 => Input::Forget { attempt },
                5 => Input::Started { attempt, at: Timestamp(1) },
                6 => Input::Ended { attempt, outcome: ok(), at: Timestamp(2) },
                7 => Input::Delivered { attempt },
                8 => {
                    let sequence = world.ledger.take_report(world.now, true).sequence;
                    Input::Acknowledged { sequence }
                }
                _ => Input::Tick,
            };
            world.step(input);
        }
    }
}

#[test]
fn each_attempt_is_stopped_at_the_end_of_its_own_lease() {
    check(
        "assign task-1-a1 lease 15000
         assign task-2-a1 lease 60000
         at 14999
         full
         at 15000
         full
         at 70000",
        "start task-1-a1
         start task-2-a1
         report 1: | held: task-1-a1 accepted, task-2-a1 accepted
         stop task-1-a1 cancelled
         report 2: | held: task-1-a1 accepted, task-2-a1 accepted
         stop task-2-a1 cancelled",
    );
}

#[test]
fn a_ledger_knows_its_session_and_how_much_it_holds() {
    let mut world = World::new(4);
    assert_eq!((world.ledger.session(), world.ledger.held_count()), (Some(Session(1)), 0));
    world.run("assign task-1-a1\nassign task-2-a1\nassign task-3-a1\nended task-3-a1");
    assert_eq!((world.ledger.held_count(), world.ledger.live_count()), (3, 2));
    world.step(Input::SessionUnknown);
    assert_eq!(world.ledger.session(), None);
    assert!(!world.ledger.has_news());
    world.run("started task-1-a1");
    assert!(world.ledger.has_news());
    world.run("report");
    assert!(!world.ledger.has_news() && !world.ledger.is_shutting_down());
    world.run("shutdown");
    assert!(world.ledger.is_shutting_down());
}

#[test]
fn a_restored_lease_runs_on_from_where_it_was_and_asks_first() {
    let ends = |renewed_at: u64, ask_until: u64| {
        let times =
            LeaseTimes { renewed_at: Monotonic(renewed_at), ask_until: Monotonic(ask_until) };
        let report = AttemptReport { attempt: id("task-1-a1"), what: ReportWhat::Accepted };
        let held = vec![Restored { report, spec: spec(30_000) }];
        Ledger::restore(LedgerConfig { attempts_max: 4 }, times, held).next_deadline()
    };
    assert_eq!(ends(5_000, 0), Some(Monotonic(35_000)));
    assert_eq!(ends(5_000, 40_000), Some(Monotonic(40_000)));
}
