//! The engine's misbehaviour (SCENARIOS C9, C10, C11): a real master and a real worker beside an
//! engine that errs, hangs, dies, comes back, loses containers and pulls for ever.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::fake_engine::{Call, Containers, FAKE_IMAGE, FakeEngine, Fault, Journal, Pull};
use cloudai_e2e::seed::seed;
use cloudai_e2e::{BUSYBOX, Cluster, Worker, engine, until};
use serde_json::{Value, json};

const WORKER: &str = "worker-1";

/// A cluster with one worker whose engine is the fake one.
struct Rig {
    // First, so that it ends while its engine is still there.
    worker: Worker,
    engine: FakeEngine,
    cluster: Cluster,
}

impl Rig {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(args: &[&str]) -> Self {
        let cluster = Cluster::start();
        let engine = FakeEngine::start(&cluster.dir());
        let worker = starting_worker(&cluster, &engine, args);
        worker.process.wait_for("Ready to receive tasks");
        Self { worker, engine, cluster }
    }

    /// Submits a fake container that does what `program` says.
    fn submit(&self, program: &str) -> String {
        self.submit_image(FAKE_IMAGE, program)
    }

    fn submit_image(&self, image: &str, program: &str) -> String {
        let words: Vec<_> = program.split_whitespace().collect();
        let spec = json!({"image": image, "command": words, "cpus": 1.0, "memory_bytes": 16 << 20});
        let answer = self.cluster.post(&spec);
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["first_task"].as_str().unwrap().to_owned()
    }

    /// Submits one that holds, and waits until it runs.
    fn hold(&self, program: &str) -> String {
        let task = self.submit(&format!("{program} hold"));
        self.engine.wait_running(&first(&task));
        self.cluster.wait_status(&task, "running");
        task
    }

    /// Waits until the worker is degraded, and gives the reason.
    fn wait_degraded(&self) -> String {
        let view = self.cluster.wait_worker(WORKER, "degraded");
        view["reason"].as_str().unwrap().to_owned()
    }

    fn wait_well(&self) {
        self.cluster.wait_worker(WORKER, "active");
    }

    /// The first attempt failed by no fault of the task, in these words, and the second one ends.
    #[track_caller]
    fn check_tried_again(&self, task: &str, words: &str) {
        let detail = self.cluster.wait_success(task);
        assert_eq!(causes(&detail), ["infra", "exit"]);
        let message = detail["attempts"][0]["outcome"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        self.check_clean();
    }

    /// Nothing is left over, and nothing ran twice.
    #[track_caller]
    fn check_clean(&self) {
        self.engine.wait_empty();
        let journal = self.engine.journal();
        journal.check_started_once();
        journal.check_pulled_one_by_one();
        until("no capacity is taken", || {
            (self.cluster.worker_view(WORKER)["allocated"]["cpus"] == 0.0).then_some(())
        });
    }
}

fn starting_worker(cluster: &Cluster, engine: &FakeEngine, args: &[&str]) -> Worker {
    let roomy = ["--cpus", "256", "--memory", "256GiB"];
    let mut command = cluster.worker_command(WORKER, &[&roomy, args].concat());
    command.env("DOCKER_HOST", engine.host());
    cluster.adopt_worker(WORKER, command)
}

/// The first attempt of a task, as its container's label has it.
fn first(task: &str) -> String {
    format!("{task}-a1")
}

/// The causes for which attempts of a task were given up, in their order.
fn causes(detail: &Value) -> Vec<&str> {
    let attempts = detail["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["outcome"]["cause"].as_str().unwrap_or("none")).collect()
}

#[test]
fn c9_a_well_engine_runs_what_it_is_told() {
    let rig = Rig::start();
    let task = rig.submit("say hello err world sleep 50 file result text exit 3");
    let detail = rig.cluster.wait_end(&task);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 3}), "{detail:#}");
    rig.cluster.cli(&["logs", &task]).check(0, &["hello", "world"]);
    rig.check_clean();
    assert!(!rig.worker.process.said().contains("WARN"), "{}", rig.worker.process.said());
}

#[test]
fn c9_an_engine_that_comes_late_is_waited_for() {
    let cluster = Cluster::start();
    let mut engine = FakeEngine::prepare(&cluster.dir());
    let worker = starting_worker(&cluster, &engine, &[]);
    worker.process.wait_for("start dockerd");
    worker.process.wait_for("Next try in");
    engine.serve();
    worker.process.wait_for("Ready to receive tasks");
    cluster.wait_success(&cluster.submit(&[FAKE_IMAGE, "say", "late"]));
    engine.wait_empty();
}

#[test]
fn c9_a_stopped_engine_that_kept_its_containers_costs_nothing() {
    let mut rig = Rig::start();
    let (ends, runs) = (rig.hold("say before"), rig.hold(""));
    rig.engine.stop(Containers::RunOn);
    let reason = rig.wait_degraded();
    assert!(reason.contains("systemctl status docker"), "{reason}");
    // One ends while nobody can say so; another is not even begun.
    rig.engine.release(&ends);
    rig.engine.wait_journal("the end", |journal| journal.exits.contains_key(&first(&ends)));
    let waits = rig.submit("exit 0");
    rig.cluster.cli(&["explain", &waits]).check(0, &["has not answered since"]);
    for task in [&ends, &runs] {
        assert_eq!(rig.cluster.task(task)["status"], "running");
    }
    rig.engine.serve();
    rig.wait_well();
    rig.engine.release(&runs);
    for task in [&ends, &runs, &waits] {
        assert_eq!(causes(&rig.cluster.wait_success(task)), ["exit"]);
    }
    rig.cluster.cli(&["logs", &ends]).check(0, &["before"]);
    rig.check_clean();
}

#[test]
fn c9_a_restarted_engine_that_killed_its_containers_costs_an_attempt() {
    let mut rig = Rig::start();
    let task = rig.hold("");
    rig.engine.stop(Containers::End);
    rig.wait_degraded();
    rig.engine.release(&task);
    rig.engine.serve();
    rig.wait_well();
    assert_eq!(causes(&rig.cluster.wait_success(&task)), ["infra", "exit"]);
    rig.check_clean();
}

#[test]
fn c9_what_an_engine_stops_before_it_goes_away_costs_an_attempt() {
    let mut rig = Rig::start();
    let (stopped, handles) = (rig.hold("deaf"), rig.hold("term 7"));
    let saves = rig.hold("term 0");
    let fails = rig.submit("exit 3");
    rig.cluster.wait_end(&fails);
    rig.engine.stop(Containers::EndFirst);
    let exits = rig.engine.journal().exits;
    let codes = [&stopped, &handles, &saves].map(|task| exits[&first(task)]);
    assert_eq!(codes, [137, 7, 0]);
    rig.wait_degraded();
    rig.engine.release("");
    rig.engine.serve();
    rig.wait_well();
    for task in [&stopped, &handles, &saves] {
        assert_eq!(causes(&rig.cluster.wait_success(task)), ["infra", "exit"]);
    }
    assert_eq!(causes(&rig.cluster.task(&fails)), ["exit"]);
    rig.check_clean();
}

#[test]
fn c9_what_was_stopped_through_the_engine_did_not_end_by_itself() {
    let rig = Rig::start();
    // The second one says that all is well, as a task does that has saved where it was.
    for script in ["term 7", "term 0"] {
        let task = rig.hold(script);
        rig.engine.stop_by_hand(&task);
        rig.engine.release(&task);
        rig.check_tried_again(&task, "stopped through the engine, and not by CloudAI");
    }
}

#[test]
fn c9_a_success_is_one_when_the_engine_cannot_say_who_ended_it() {
    let rig = Rig::start();
    for (job, fault) in (1..).zip(Fault::AT_ONCE.into_iter().chain([Fault::Hang])) {
        // All before the task is there: its number is known.
        rig.engine.once(Call::Events, &format!("task-{job}-a1"), fault);
        let task = rig.submit("exit 0");
        assert_eq!(causes(&rig.cluster.wait_success(&task)), ["exit"], "{fault:?}");
    }
    rig.check_clean();
}

#[test]
fn c9_a_failure_before_the_connection_breaks_is_the_tasks_own() {
    let rig = Rig::start();
    // All before the task is there: its number is known. The look finds it ended.
    rig.engine.once(Call::Events, "task-1-a1", Fault::Lose);
    rig.engine.once(Call::Wait, "task-1-a1", Fault::Cut);
    rig.engine.once(Call::Inspect, "task-1-a1", Fault::Close);
    let task = rig.submit("exit 7");
    assert_eq!(causes(&rig.cluster.wait_end(&task)), ["exit"]);
    rig.check_clean();
}

#[test]
fn c9_what_ended_while_worker_and_engine_were_away_is_told_by_its_events_and_its_signal() {
    let rig = Rig::start();
    let (fails, handles, killed) = (rig.hold("exit 3"), rig.hold("term 7"), rig.hold("deaf"));
    let Rig { worker, mut engine, cluster } = rig;
    drop(worker);
    engine.release(&fails);
    engine.wait_journal("the end", |journal| journal.exits.contains_key(&first(&fails)));
    engine.stop_by_hand(&handles);
    let worker = starting_worker(&cluster, &engine, &[]);
    engine.release(&handles);
    assert_eq!(causes(&cluster.wait_end(&fails)), ["exit"]);
    assert_eq!(causes(&cluster.wait_success(&handles)), ["infra", "exit"]);
    drop(worker);
    engine.stop(Containers::EndFirst);
    engine.serve();
    let worker = starting_worker(&cluster, &engine, &[]);
    engine.release(&killed);
    assert_eq!(causes(&cluster.wait_success(&killed)), ["infra", "exit"]);
    Rig { worker, engine, cluster }.check_clean();
}

#[test]
fn c9_stopped_while_the_engine_hangs_a_worker_stops_what_the_process_before_it_ran() {
    let rig = Rig::start();
    let task = rig.hold("say a");
    let Rig { worker, engine, cluster } = rig;
    drop(worker);
    engine.freeze();
    let mut worker = starting_worker(&cluster, &engine, &[]);
    worker.process.wait_for("Master Address");
    worker.process.terminate();
    worker.process.wait_for("what an earlier process ran is taken up first, to be stopped");
    engine.thaw();
    assert_eq!(worker.process.wait_end(), 0, "{}", worker.process.said());
    assert_eq!(engine.containers(), Vec::<String>::new());
    let worker = starting_worker(&cluster, &engine, &[]);
    engine.wait_running(&format!("{task}-a2"));
    engine.release(&task);
    let detail = cluster.wait_success(&task);
    assert_eq!(causes(&detail), ["worker_lost", "exit"], "{detail:#}");
    Rig { worker, engine, cluster }.check_clean();
}

#[test]
fn c9_stopped_while_the_engine_is_away_a_worker_says_what_goes_on_and_leaves_it_whole() {
    let rig = Rig::start();
    let task = rig.hold("say a");
    let Rig { worker, mut engine, cluster } = rig;
    drop(worker);
    engine.stop(Containers::RunOn);
    let mut worker = starting_worker(&cluster, &engine, &[]);
    worker.process.wait_for("Next try in");
    worker.process.terminate();
    assert_eq!(worker.process.wait_end(), 125, "{}", worker.process.said());
    worker
        .process
        .wait_for("that an earlier process of this worker ran are not stopped (1 in all)");
    engine.serve();
    let worker = starting_worker(&cluster, &engine, &[]);
    worker.process.wait_for("Ready to receive tasks");
    engine.release(&task);
    assert_eq!(causes(&cluster.wait_success(&task)), ["exit"]);
    assert_eq!(cluster.log_of(&task, 1, "stdout"), "a\n");
    Rig { worker, engine, cluster }.check_clean();
}

#[test]
fn c9_a_hanging_engine_ends_nothing_and_frees_nothing() {
    let rig = Rig::start();
    let (runs, ends, cancelled) = (rig.hold("say a"), rig.hold("say b exit 4"), rig.hold(""));
    rig.engine.freeze();
    rig.engine.release(&ends);
    rig.cluster.ok(&["cancel", &cancelled]);
    let reason = rig.wait_degraded();
    assert!(reason.contains("did not answer a ping within"), "{reason}");
    for task in [&runs, &ends, &cancelled] {
        let detail = rig.cluster.task(task);
        assert!(detail["outcome"].is_null(), "{detail:#}");
    }
    assert_eq!(rig.cluster.worker_view(WORKER)["allocated"]["cpus"], 3.0);
    rig.engine.thaw();
    rig.wait_well();
    assert_eq!(rig.cluster.wait_end(&cancelled)["status"], "cancelled");
    let detail = rig.cluster.wait_end(&ends);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 4}), "{detail:#}");
    rig.engine.release(&runs);
    assert_eq!(causes(&rig.cluster.wait_success(&runs)), ["exit"]);
    rig.check_clean();
}

#[test]
fn c9_a_container_that_runs_has_not_ended_whatever_one_answer_says() {
    let rig = Rig::start();
    rig.engine.once(Call::Wait, "task-1-a1", Fault::Close);
    rig.engine.once(Call::Inspect, "task-1-a1", Fault::Refuse(404));
    let task = rig.hold("exit 3");
    let looked = |journal: &Journal| journal.count(Call::Inspect, "task-1-a1") > 1;
    rig.engine.wait_journal("a second look", looked);
    rig.engine.release(&task);
    assert_eq!(rig.cluster.wait_end(&task)["outcome"]["exit_code"], 3);
    rig.check_clean();
}

#[test]
fn c9_a_container_taken_away_by_hand_costs_an_attempt() {
    let rig = Rig::start();
    let task = rig.hold("");
    rig.engine.take_away(&task);
    rig.engine.release(&task);
    rig.check_tried_again(&task, "somebody else removed the container");
}

#[test]
fn c9_files_whose_transfer_breaks_off_are_read_again() {
    let mut rig = Rig::start();
    // All before the task is there: its number is known.
    for fault in [Fault::Cut, Fault::Close, Fault::Lose] {
        rig.engine.once(Call::Archive, "task-1-a1", fault);
    }
    rig.engine.once(Call::Archive, "task-1-a1", Fault::Hold);
    let task = rig.submit("file result whole");
    rig.engine.wait_journal("the fourth try", |journal| journal.count(Call::Archive, &task) == 4);
    // The engine is away for longer than anything is tried again.
    rig.engine.stop(Containers::RunOn);
    rig.wait_degraded();
    rig.engine.serve();
    assert_eq!(causes(&rig.cluster.wait_success(&task)), ["exit"]);
    let file = rig.cluster.bytes(&format!("/tasks/{task}/files/result"));
    assert_eq!(file.as_deref(), Some(&b"whole"[..]));
    rig.check_clean();
}

/// Submits a task in whose life one call fails once. The fault has to be there before the task is:
/// there is no other client, so that its number is known.
fn begin_case(rig: &Rig, next: usize, (call, fault): (Call, Fault)) -> String {
    rig.engine.once(call, &format!("task-{next}-a1"), fault);
    let task = rig.submit(if call == Call::Kill { "say x hold" } else { "say x sleep 20" });
    assert_eq!(task, format!("task-{next}"));
    task
}

fn end_case(rig: &Rig, task: &str, (call, fault): (Call, Fault)) {
    if call == Call::Kill {
        rig.engine.wait_running(&first(task));
        rig.cluster.ok(&["cancel", task]);
    }
    let detail = rig.cluster.wait_end(task);
    let what = format!("{call:?} {fault:?}: {detail:#}");
    if call == Call::Kill {
        assert_eq!(detail["status"], "cancelled", "{what}");
        return;
    }
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 0}), "{what}");
    let causes = causes(&detail);
    assert!(causes == ["exit"] || causes == ["infra", "exit"], "{what}");
    assert_eq!(rig.cluster.log_of(task, causes.len() as u64, "stdout"), "x\n", "{what}");
}

/// Every call fails once in every way of which its caller learns at once, each in the life of its
/// own task.
#[test]
fn c9_each_call_that_fails_once_costs_at_most_an_attempt() {
    let calls = [Call::Create, Call::Attach, Call::Start, Call::Wait, Call::Inspect, Call::Archive];
    let calls = [&calls[..], &[Call::Remove, Call::Kill]].concat();
    let rig = Rig::start();
    rig.engine.set_pull(FAKE_IMAGE, Pull::Works);
    let cases = calls.iter().flat_map(|call| Fault::AT_ONCE.map(|fault| (*call, fault)));
    // A few at a time: a worker on which too many fail in a row is put aside.
    let cases: Vec<_> = (1..).zip(cases).collect();
    for few in cases.chunks(4) {
        let tasks: Vec<_> = few.iter().map(|(no, case)| begin_case(&rig, *no, *case)).collect();
        for (task, (_, case)) in tasks.iter().zip(few) {
            end_case(&rig, task, *case);
        }
    }
    rig.check_clean();
    rig.wait_well();
}

#[test]
fn c9_a_log_goes_on_live_after_the_engine_was_away() {
    let mut rig = Rig::start();
    let task = rig.submit("say one hold say two sleep 60000");
    let said = |rig: &Rig, text: &str| {
        until(text, || (rig.cluster.log_of(&task, 1, "stdout") == text).then_some(()));
    };
    said(&rig, "one\n");
    rig.engine.stop(Containers::RunOn);
    rig.wait_degraded();
    rig.engine.serve();
    rig.engine.release(&task);
    said(&rig, "one\ntwo\n");
    rig.cluster.ok(&["cancel", &task]);
    assert_eq!(rig.cluster.wait_end(&task)["status"], "cancelled");
    assert_eq!(rig.cluster.ok(&["logs", &task]), "one\ntwo");
    rig.check_clean();
}

/// The log of a container that a restarted worker takes up is whole, and nothing is in it twice,
/// though the engine refuses its record at first: while the container runs, or at its end.
#[test]
fn c9_a_log_is_taken_up_beside_an_engine_that_refuses_its_record() {
    let mut rig = Rig::start();
    let runs = rig.submit("say one hold say two sleep 100");
    let ends = rig.submit("say one hold say two");
    for task in [&runs, &ends] {
        until("a line", || (rig.cluster.log_of(task, 1, "stdout") == "one\n").then_some(()));
    }
    rig.worker.process.kill();
    rig.engine.release(&ends);
    rig.engine.wait_journal("the end", |journal| journal.exits.contains_key(&first(&ends)));
    for task in [&runs, &ends] {
        rig.engine.once(Call::Logs, &first(task), Fault::Refuse(500));
    }
    rig.worker = starting_worker(&rig.cluster, &rig.engine, &[]);
    rig.engine.wait_journal("the faults", |journal| {
        [&runs, &ends].iter().all(|task| journal.count(Call::Logs, &first(task)) > 1)
    });
    rig.engine.release(&runs);
    for task in [&runs, &ends] {
        assert_eq!(causes(&rig.cluster.wait_success(task)), ["exit"]);
        assert_eq!(rig.cluster.ok(&["logs", task]), "one\ntwo");
    }
    rig.check_clean();
}

#[test]
fn c13_a_worker_on_a_full_disk_takes_no_new_work() {
    // No disk is emptier than that.
    let rig = Rig::start_with(&["--disk-percent-max", "1"]);
    let reason = rig.wait_degraded();
    assert!(reason.contains("it takes no new work above 1 %"), "{reason}");
    let waits = rig.submit("exit 0");
    rig.cluster.cli(&["explain", &waits]).check(0, &["it takes no new work above 1 %"]);
}

#[test]
fn c10_a_pull_that_stalls_is_ended_and_tried_again_and_others_go_on() {
    let rig = Rig::start_with(&["--pull-stall", "1s"]);
    for (image, pull) in [("fake/hangs", Pull::Hangs), ("fake/trickles", Pull::Trickles)] {
        rig.engine.set_pull(image, pull);
        let task = rig.submit_image(image, "exit 0");
        rig.engine.wait_journal("the pull", |journal| journal.pulls.contains_key(image));
        rig.cluster.wait_success(&rig.submit("say other"));
        rig.engine.wait_journal("another pull", |journal| journal.pulls[image] > 1);
        rig.engine.set_pull(image, Pull::Works);
        let detail = rig.cluster.wait_success(&task);
        assert_eq!(causes(&detail)[0], "infra", "{detail:#}");
        let message = detail["attempts"][0]["outcome"]["message"].as_str().unwrap();
        assert!(message.contains("no progress for 1 s"), "{message}");
    }
    rig.check_clean();
}

#[test]
fn c10_an_image_is_pulled_once_for_all_and_until_the_last_has_left() {
    let rig = Rig::start();
    let image = "fake/shared";
    rig.engine.set_pull(image, Pull::Hangs);
    let names = [image, "fake/shared:latest", image];
    let tasks = names.map(|name| rig.submit_image(name, "exit 0"));
    for task in &tasks {
        until("it waits for the pull", || {
            let creates = rig.engine.journal().count(Call::Create, &first(task));
            (creates > 0 && rig.engine.pulling(image) > 0).then_some(())
        });
    }
    for leaves in &tasks[..2] {
        rig.cluster.ok(&["cancel", leaves]);
        assert_eq!(rig.cluster.wait_end(leaves)["status"], "cancelled");
        assert_eq!(rig.engine.pulling(image), 1);
    }
    rig.cluster.ok(&["cancel", &tasks[2]]);
    until("nobody pulls any more", || (rig.engine.pulling(image) == 0).then_some(()));
    assert_eq!(rig.engine.journal().pulls[image], 1);
    rig.engine.set_pull(image, Pull::Works);
    rig.cluster.wait_success(&rig.submit_image(image, "exit 0"));
    rig.check_clean();
}

#[test]
fn c10_a_registry_that_is_away_is_asked_again_and_a_missing_image_is_not() {
    let rig = Rig::start();
    let refused = "Get \"http://r:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
    rig.engine.set_pull("fake/away", Pull::Fails(refused.to_owned()));
    let task = rig.submit_image("fake/away", "exit 0");
    rig.engine.wait_journal("another pull", |journal| {
        journal.pulls.get("fake/away").is_some_and(|pulls| *pulls > 1)
    });
    rig.engine.set_pull("fake/away", Pull::Works);
    let detail = rig.cluster.wait_success(&task);
    assert_eq!(causes(&detail)[0], "infra", "{detail:#}");
    let detail = rig.cluster.wait_end(&rig.submit_image("fake/missing", "exit 0"));
    assert_eq!((&detail["status"], causes(&detail)), (&json!("failed"), vec!["image"]));
    rig.check_clean();
}

#[test]
fn c11_a_container_that_ignores_sigterm_is_killed_after_its_grace() {
    let rig = Rig::start();
    let task = rig.submit_image(FAKE_IMAGE, "deaf hold");
    rig.engine.wait_running(&first(&task));
    rig.cluster.ok(&["cancel", &task]);
    assert_eq!(rig.cluster.wait_end(&task)["status"], "cancelled");
    assert_eq!(rig.engine.journal().signals(&task), ["SIGTERM", "SIGKILL"]);
    rig.check_clean();
}

#[test]
fn c11_capacity_stays_taken_until_the_container_is_gone() {
    let rig = Rig::start();
    let task =
        rig.cluster.submit(&["--grace", "1s", "--cpus", "256", FAKE_IMAGE, "undead", "hold"]);
    rig.engine.wait_running(&first(&task));
    let waits = rig.submit("exit 0");
    rig.cluster.ok(&["cancel", &task]);
    rig.engine.wait_journal("SIGKILL", |journal| journal.signals(&task).contains(&"SIGKILL"));
    assert_eq!(rig.cluster.worker_view(WORKER)["allocated"]["cpus"], 256.0);
    assert_eq!(rig.cluster.task(&waits)["status"], "queued");
    rig.engine.let_die(&task);
    assert_eq!(rig.cluster.wait_end(&task)["status"], "cancelled");
    rig.cluster.wait_success(&waits);
    rig.check_clean();
}

#[test]
fn c11_a_container_whose_stop_came_during_the_attach_is_not_started() {
    let rig = Rig::start();
    // Before the task is there: its number is known.
    rig.engine.once(Call::Attach, "task-1-a1", Fault::Hold);
    let task = rig.submit("hold");
    rig.engine.wait_journal("the attach", |journal| journal.count(Call::Attach, &task) > 0);
    rig.cluster.ok(&["cancel", &task]);
    rig.worker.process.wait_for("Stopping task");
    rig.engine.let_go(Call::Attach);
    assert_eq!(rig.cluster.wait_end(&task)["status"], "cancelled");
    assert_eq!(rig.engine.journal().count(Call::Start, &task), 0);
    rig.check_clean();
}

#[test]
fn c9_a_start_that_an_earlier_process_asked_for_and_comes_late_is_the_only_one() {
    let rig = Rig::start();
    // Before the task is there: its number is known.
    rig.engine.once(Call::Start, "task-1-a1", Fault::Hold);
    let task = rig.submit("say once exit 3");
    rig.engine.wait_journal("the start", |journal| journal.count(Call::Start, &task) > 0);
    let Rig { worker, engine, cluster } = rig;
    drop(worker);
    engine.once(Call::Attach, "task-1-a1", Fault::Hold);
    let worker = starting_worker(&cluster, &engine, &[]);
    engine.wait_journal("the attach", |journal| journal.count(Call::Attach, &task) > 1);
    engine.let_go(Call::Start);
    engine.wait_journal("the end", |journal| journal.exits.contains_key(&first(&task)));
    engine.let_go(Call::Attach);
    let detail = cluster.wait_end(&task);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 3}), "{detail:#}");
    assert_eq!(cluster.log_of(&task, 1, "stdout"), "once\n");
    Rig { worker, engine, cluster }.check_clean();
}

#[test]
fn c11_what_may_run_is_not_reported_as_ended_while_it_cannot_be_removed() {
    let rig = Rig::start();
    // All are told before the first task is there: its number is known. The worker hears nothing of
    // the start, and then that there is no such container.
    rig.engine.always(Call::Start, "task-1-a1", Fault::Lose);
    rig.engine.always(Call::Inspect, "task-1-a1", Fault::Refuse(404));
    rig.engine.always(Call::Remove, "task-1-a1", Fault::Refuse(500));
    let task = rig.submit("hold");
    rig.engine.wait_running(&first(&task));
    rig.engine.wait_journal("a second try", |j| j.count(Call::Remove, "task-1-a1") > 1);
    rig.cluster.ok(&["cancel", &task]);
    assert!(rig.cluster.task(&task)["outcome"].is_null());
    assert_eq!(rig.cluster.worker_view(WORKER)["allocated"]["cpus"], 1.0);
    rig.engine.heal();
    assert_eq!(rig.cluster.wait_end(&task)["status"], "cancelled");
    rig.check_clean();
}

#[test]
fn c11_a_real_container_that_ignores_sigterm_is_killed_after_its_grace() {
    let cluster = Cluster::start();
    let worker = cluster.worker(WORKER, &[]);
    let script = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let task = cluster.submit(&["--grace", "2s", BUSYBOX, "sh", "-c", script]);
    let container = cluster.wait_container(&task, &worker);
    until("it is deaf", || cluster.log_of(&task, 1, "stdout").contains("deaf").then_some(()));
    cluster.ok(&["cancel", &task]);
    // It is there until the end is known, and never after.
    assert_eq!(engine::inspect(&container)["State"]["Running"], true);
    let detail = cluster.wait_end(&task);
    assert_eq!(detail["status"], "cancelled", "{detail:#}");
    assert!(engine::containers_with(&worker.label).is_empty(), "{detail:#}");
}

/// How the tasks of the run with faults at random end: most of them well, as many failures in a
/// row put a worker aside.
fn exit_code(number: u64) -> i32 {
    i32::from(number.is_multiple_of(10))
}

/// What they do.
fn program(number: u64) -> String {
    format!("say begin sleep {} err end exit {}", number * 37 % 400, exit_code(number))
}

#[test]
fn c9_an_engine_that_fails_at_random_loses_and_doubles_nothing() {
    const TASKS: u64 = 60;
    let seed = seed("CLOUDAI_SEED");
    let rig = Rig::start();
    rig.engine.set_pull(FAKE_IMAGE, Pull::Works);
    rig.engine.by_chance(seed, 100);
    let tasks: Vec<_> = (0..TASKS).map(|number| (rig.submit(&program(number)), number)).collect();
    rig.engine.wait_journal("faults", |journal| journal.faults() >= 15);
    rig.engine.heal();
    let ends = tasks.iter().filter(|(task, number)| check_outcome(&rig, task, *number)).count();
    // One call in ten fails, and an attempt is tried many times.
    assert!(ends as u64 > TASKS / 2, "only {ends} of {TASKS} ended by themselves");
    rig.wait_well();
    rig.check_clean();
}

/// The outcome is that of the last attempt's container, or the engine's fault by name; says whether
/// it is the first.
#[track_caller]
fn check_outcome(rig: &Rig, task: &str, number: u64) -> bool {
    let detail = rig.cluster.wait_end(task);
    let what = format!("{detail:#}");
    let causes = causes(&detail);
    let (last, earlier) = causes.split_last().unwrap();
    assert!(earlier.iter().all(|cause| *cause == "infra"), "{what}");
    if *last == "infra" {
        return false;
    }
    let code = exit_code(number);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": code}), "{what}");
    let attempt = format!("{task}-a{}", causes.len());
    let really = rig.engine.journal().exits.get(&attempt).copied();
    assert_eq!(really, Some(code), "{what}");
    let log = rig.cluster.log_of(task, causes.len() as u64, "stderr");
    assert_eq!(log, "end\n", "{what}");
    true
}
