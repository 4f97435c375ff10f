//! A real engine that hangs, is restarted, is killed (SCENARIOS C9): a dockerd of the test's own,
//! beside the machine's. It needs root.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::path::Path;

use cloudai_e2e::private_engine::PrivateEngine;
use cloudai_e2e::{BUSYBOX, Cluster, Worker, until};
use serde_json::Value;

const WORKER: &str = "worker-1";
/// Runs until it is told to go on.
const HOLD: &str = "until [ -e /output/go ]; do sleep 0.1; done";

/// A cluster with one worker whose engine is the private one.
struct Rig {
    // First, so that it ends while its engine is still there.
    _worker: Worker,
    engine: PrivateEngine,
    cluster: Cluster,
}

impl Rig {
    fn start() -> Self {
        let cluster = Cluster::start();
        let engine = PrivateEngine::start(&cluster.dir(), BUSYBOX);
        let mut command = cluster.worker_command(WORKER, &["--cpus", "8"]);
        command.env("DOCKER_HOST", engine.host());
        let worker = cluster.adopt_worker(WORKER, command);
        worker.process.wait_for("Ready to receive tasks");
        Self { _worker: worker, engine, cluster }
    }

    fn submit(&self, script: &str) -> String {
        self.cluster.submit(&["--cpus", "0.5", BUSYBOX, "sh", "-c", script])
    }

    /// Submits one that says that it runs, and waits until it does.
    fn hold(&self, script: &str) -> String {
        let task = self.submit(&format!("echo begin; {script}"));
        self.cluster.wait_status(&task, "running");
        until("it says that it runs", || {
            self.cluster.log_of(&task, 1, "stdout").contains("begin").then_some(())
        });
        task
    }

    fn wait_degraded(&self) {
        self.cluster.wait_worker(WORKER, "degraded");
    }

    fn wait_well(&self) {
        self.cluster.wait_worker(WORKER, "active");
    }

    /// Nothing is left over.
    #[track_caller]
    fn check_clean(&self) {
        until("no container is left", || self.engine.containers().is_empty().then_some(()));
        until("no capacity is taken", || {
            (self.cluster.worker_view(WORKER)["allocated"]["cpus"] == 0.0).then_some(())
        });
    }
}

/// The causes with which the attempts of a task ended, in their order.
fn causes(detail: &Value) -> Vec<&str> {
    let attempts = detail["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["outcome"]["cause"].as_str().unwrap_or("none")).collect()
}

fn go(output: &Path) {
    std::fs::write(output.join("go"), "").unwrap();
}

#[test]
fn c9_a_real_engine_that_hangs_ends_nothing_and_doubles_nothing() {
    let mut rig = Rig::start();
    let ends = rig.hold(&format!("{HOLD}; echo end; exit 4"));
    let runs = rig.hold(&format!("{HOLD}; echo end"));
    let outputs = [&ends, &runs].map(|task| rig.engine.output_of(&format!("cloudai-{task}-a1")));
    rig.engine.pause();
    rig.wait_degraded();
    go(&outputs[0]);
    let waits = rig.submit("echo late");
    for task in [&ends, &runs] {
        assert!(rig.cluster.task(task)["outcome"].is_null());
    }
    rig.engine.resume();
    rig.wait_well();
    let detail = rig.cluster.wait_end(&ends);
    assert_eq!((&detail["outcome"]["exit_code"], causes(&detail)), (&4.into(), vec!["exit"]));
    go(&outputs[1]);
    for task in [&runs, &waits] {
        assert_eq!(causes(&rig.cluster.wait_success(task)), ["exit"]);
    }
    for task in [&ends, &runs] {
        assert_eq!(rig.cluster.log_of(task, 1, "stdout"), "begin\nend\n");
    }
    rig.check_clean();
}

/// What a task does whose first attempt the engine's end interrupts. It has a handler, so that its
/// exit code looks like its own.
fn interrupted(code: u8) -> String {
    format!("[ $CLOUDAI_ATTEMPT -gt 1 ] && exit 0; trap 'exit {code}' TERM; {HOLD}")
}

#[test]
fn c9_a_real_engine_that_is_restarted_costs_an_attempt() {
    let mut rig = Rig::start();
    // One says that all is well, as a task does that has saved where it was.
    let tasks = [rig.hold(&interrupted(9)), rig.hold(&interrupted(0))];
    let fails = rig.submit("exit 3");
    assert_eq!(causes(&rig.cluster.wait_end(&fails)), ["exit"]);
    rig.engine.stop();
    rig.wait_degraded();
    rig.engine.serve();
    rig.wait_well();
    for task in &tasks {
        let detail = rig.cluster.wait_success(task);
        assert_eq!(causes(&detail), ["infra", "exit"], "{detail:#}");
        assert_eq!(rig.cluster.log_of(task, 1, "stdout"), "begin\n");
    }
    rig.check_clean();
}

#[test]
fn c9_a_real_engine_that_is_killed_costs_an_attempt() {
    let mut rig = Rig::start();
    let task = rig.hold(&interrupted(9));
    rig.engine.kill();
    rig.wait_degraded();
    assert!(rig.cluster.task(&task)["outcome"].is_null());
    rig.engine.serve();
    rig.wait_well();
    let detail = rig.cluster.wait_success(&task);
    assert_eq!(causes(&detail), ["infra", "exit"], "{detail:#}");
    rig.check_clean();
}
