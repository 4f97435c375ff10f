//! The engine's misbehaviour (SCENARIOS C9, C10, C11): a real master and a real worker beside an
//! engine that errs, hangs, dies, comes back, loses containers and pulls for ever.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::fake_engine::{FAKE_IMAGE, FakeEngine};
use cloudai_e2e::{Cluster, Process, Worker};
use serde_json::json;

/// Room for as many tasks as a test has.
const ROOMY: [&str; 4] = ["--cpus", "256", "--memory", "256GiB"];

/// A cluster with one worker whose engine is the fake one.
struct Rig {
    // First, so that it ends while its engine is still there.
    worker: Worker,
    engine: FakeEngine,
    cluster: Cluster,
}

impl Rig {
    fn start() -> Self {
        let cluster = Cluster::start();
        let engine = FakeEngine::start(&cluster.dir());
        let worker = starting_worker(&cluster, &engine, &[]);
        worker.process.wait_for("Ready to receive tasks");
        Self { worker, engine, cluster }
    }

    /// Submits a fake container that does what `program` says.
    fn submit(&self, program: &str) -> String {
        let words: Vec<_> = program.split(' ').collect();
        self.cluster.submit(&[&[FAKE_IMAGE], &*words].concat())
    }
}

fn starting_worker(cluster: &Cluster, engine: &FakeEngine, args: &[&str]) -> Worker {
    let mut command = cluster.worker_command("worker-1", &[&ROOMY, args].concat());
    command.env("DOCKER_HOST", engine.host());
    let process = Process::start("worker-1", &mut command);
    Worker { process, label: cluster.worker_label("worker-1") }
}

#[test]
fn c9_a_well_engine_runs_what_it_is_told() {
    let rig = Rig::start();
    let task = rig.submit("say hello err world sleep 50 file result text exit 3");
    let detail = rig.cluster.wait_end(&task);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 3}), "{detail:#}");
    rig.cluster.cli(&["logs", &task]).check(0, &["hello", "world"]);
    rig.engine.wait_empty();
    rig.engine.journal().check_started_once();
    assert!(!rig.worker.process.said().contains("WARN"), "{}", rig.worker.process.said());
}
