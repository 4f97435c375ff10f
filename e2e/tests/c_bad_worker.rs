//! C15: a task that kills its worker each time, and a worker on which everything fails. The first
//! is stopped after its crash budget, the second gets no work until it is well. The pure rules are
//! in `crates/master-core/src/tests/{retrying,breaking}.rs`; here they stand in the real binary.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::fake_engine::{Call, FAKE_IMAGE, FakeEngine, Fault};
use cloudai_e2e::{BUSYBOX, Cluster, Worker, engine, until};
use serde_json::{Value, json};

/// How each attempt of a task ended.
fn causes(detail: &Value) -> Vec<&str> {
    let attempts = detail["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["outcome"]["cause"].as_str().unwrap()).collect()
}

/// Waits until this attempt of a task runs.
fn wait_attempt(cluster: &Cluster, task: &str, attempt: u64) {
    until(&format!("attempt {attempt} of {task} runs"), || {
        let detail = cluster.task(task);
        (detail["status"] == "running" && detail["attempt"] == attempt).then_some(())
    });
}

/// The machine of a worker dies, and its containers with it.
fn die(worker: &mut Worker) {
    worker.process.kill();
    engine::remove(&engine::containers_with(&worker.label));
}

/// The machine of a worker dies and is set up anew under its old name.
fn die_and_begin_anew(cluster: &Cluster, worker: &mut Worker) {
    die(worker);
    std::fs::remove_dir_all(cluster.data_dir().join("workers/worker-2")).unwrap();
    *worker = cluster.worker("worker-2", &[]);
}

#[test]
fn c15_a_task_that_kills_its_worker_each_time_is_stopped_after_its_crash_budget() {
    let cluster = Cluster::start();
    let mut one = cluster.worker("worker-1", &[]);
    // Attempt 3 fails by itself: that the user's retry is still there after two crashes makes 4.
    let script = "test $CLOUDAI_ATTEMPT != 3 || exit 4; exec sleep 600";
    let budgets = ["--crashes-max", "2", "--retries", "1", "--lease", "15s"];
    let poison = cluster.submit(&[&budgets[..], &[BUSYBOX, "sh", "-c", script]].concat());
    wait_attempt(&cluster, &poison, 1);
    let mut two = cluster.worker("worker-2", &[]);
    // The first machine is gone for good, the second comes back each time.
    die(&mut one);
    wait_attempt(&cluster, &poison, 2);
    die_and_begin_anew(&cluster, &mut two);
    wait_attempt(&cluster, &poison, 4);
    die_and_begin_anew(&cluster, &mut two);

    let detail = cluster.wait_end(&poison);
    assert_eq!(causes(&detail), ["worker_lost", "worker_lost", "exit", "worker_lost"]);
    assert_eq!((&detail["status"], &detail["crashes"]), (&json!("failed"), &json!(3)));
    assert_eq!(detail["outcome"]["cause"], "worker_lost", "{detail:#}");
    let words = "its worker was lost 3 times while it ran, which is more than the 2 that the job \
                 allows (crashes_max); last: its worker came back without it";
    assert_eq!(detail["outcome"]["message"], words);
    let shown = cluster.cli(&["task", "show", &poison]);
    shown.check(0, &["Status:    failed (worker_lost): its worker was lost 3 times while it ran"]);
    // The worker is not to blame, and nothing of the task is left on it.
    assert_eq!(cluster.worker_view("worker-2")["status"], "active");
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
    engine::wait_gone(&two.label);
    assert_eq!(cluster.task(&poison)["outcome"], detail["outcome"]);
}

/// A worker whose engine is bad, and one whose engine is well. A policy that takes the first
/// worker with room always looks at the bad one first.
struct Rig {
    // First, so that they end while their engines are still there.
    _workers: [Worker; 2],
    bad: FakeEngine,
    good: FakeEngine,
    cluster: Cluster,
}

const BAD: &str = "worker-1";
const GOOD: &str = "worker-2";

impl Rig {
    fn start() -> Self {
        let cluster = Cluster::start();
        let start = |id: &str| {
            let dir = cluster.dir().join(id);
            std::fs::create_dir(&dir).unwrap();
            let engine = FakeEngine::start(&dir);
            let mut command = cluster.worker_command(id, &["--cpus", "64", "--memory", "64GiB"]);
            command.env("DOCKER_HOST", engine.host());
            let worker = cluster.adopt_worker(id, command);
            worker.process.wait_for("Ready to receive tasks");
            (worker, engine)
        };
        let ((bad_worker, bad), (good_worker, good)) = (start(BAD), start(GOOD));
        Self { _workers: [bad_worker, good_worker], bad, good, cluster }
    }

    /// Submits a task that the worker at fault makes fail, and any other does not.
    fn submit(&self, more: &[&str]) -> String {
        let budgets = ["--retries", "5", "--cpus", "0.1", "-m", "16MiB"];
        self.cluster.submit(&[&budgets[..], more, &[FAKE_IMAGE, "say", "done"]].concat())
    }

    /// Everything fails on the bad worker: it is put aside, says why, does no harm meanwhile, and
    /// comes back by itself once it is well.
    fn check(&self, cause: &str, why: &str) {
        let tasks: Vec<_> = (0..8).map(|_| self.submit(&[])).collect();
        let view = self.cluster.wait_worker(BAD, "put_aside");
        let reason = view["reason"].as_str().unwrap();
        assert!(reason.contains(" failures in a row; last: task-"), "{reason}");
        assert!(reason.contains(why), "{reason}");
        let shown = self.cluster.cli(&["workers", BAD]);
        shown.check(0, &["worker-1  Put aside", "Gets no new work: ", why]);
        // What may run nowhere else waits, and says so.
        let pinned = self.submit(&["--worker", BAD]);
        let explained = self.cluster.cli(&["explain", &pinned]);
        explained.check(0, &["(queued): the workers that could take it get no new work now", why]);
        let explained = self.cluster.get(&format!("/tasks/{pinned}/explain")).body;
        assert_eq!(explained["workers"][0]["worker"], BAD, "{explained:#}");
        assert!(explained["workers"][0]["reason"].as_str().unwrap().contains(why), "{explained:#}");

        for task in &tasks {
            let detail = self.cluster.wait_success(task);
            assert_eq!(detail["worker"], GOOD, "{detail:#}");
            let (last, earlier) =
                causes(&detail).split_last().map(|(a, b)| (*a, b.to_vec())).unwrap();
            assert!(last == "exit" && earlier.iter().all(|one| *one == cause), "{detail:#}");
        }
        let later = self.submit(&[]);
        assert_eq!(self.cluster.wait_success(&later)["worker"], GOOD);
        assert_eq!(self.bad.journal().count(Call::Create, &later), 0);

        self.bad.heal();
        let detail = self.cluster.wait_success(&pinned);
        assert_eq!((&detail["worker"], causes(&detail)), (&json!(BAD), vec!["exit"]));
        assert_eq!(self.cluster.worker_view(BAD)["status"], "active");
        let after = self.submit(&[]);
        assert_eq!(self.cluster.wait_success(&after)["worker"], BAD);
        for engine in [&self.bad, &self.good] {
            engine.wait_empty();
            engine.journal().check_started_once();
        }
    }
}

#[test]
fn c15_a_worker_whose_engine_starts_nothing_is_put_aside_until_it_is_well() {
    let rig = Rig::start();
    rig.bad.always(Call::Start, "", Fault::Refuse(500));
    rig.check("infra", "the fake engine does not want to");
}

#[test]
fn c15_a_worker_on_which_every_task_ends_at_once_is_put_aside_until_it_is_well() {
    let rig = Rig::start();
    rig.bad.doom(127);
    rig.check("exit", "ended with exit(127)");
}
