//! C3, C5, C6 and C7: processes that stand still, are gone for good, or are cut off for longer or
//! shorter than a lease. What is waited for is always a state; the leases are the shortest there
//! are.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::proxy::{Proxy, Way};
use cloudai_e2e::{BUSYBOX, Cluster, Life, Watch, Worker, engine, until};
use serde_json::Value;

/// Ends at once on every attempt but the first, which goes on until it is stopped.
const ONLY_FIRST_GOES_ON: &str = "echo try $CLOUDAI_ATTEMPT; echo $CLOUDAI_ATTEMPT >/output/try; \
                                  test $CLOUDAI_ATTEMPT != 1 || sleep 600";

fn submit(cluster: &Cluster, lease: &str, more: &[&str], script: &str) -> String {
    let args = ["--lease", lease, "--grace", "1s"];
    cluster.submit(&[&args, more, &[BUSYBOX, "sh", "-c", script]].concat())
}

/// Waits until the engine tells of a container of this attempt that `is` what is meant.
fn wait_life(watch: &Watch, cluster: &Cluster, attempt: &str, is: fn(&Life) -> bool) -> Life {
    until(&format!("the container of {attempt}"), || {
        let lives = watch.containers(&cluster.dir()).into_values();
        lives.into_iter().find(|life| life.attempt == attempt && is(life))
    })
}

fn is_started(life: &Life) -> bool {
    life.starts > 0
}

fn is_ended(life: &Life) -> bool {
    life.ended_at.is_some()
}

/// How each attempt of a task ended: its cause, and the exit code if there was one.
fn causes(detail: &Value) -> Vec<String> {
    let attempts = detail["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| attempt["outcome"]["cause"].as_str().unwrap().to_owned()).collect()
}

fn check_nothing_left(cluster: &Cluster, watch: &Watch, workers: &[&Worker]) {
    for worker in workers {
        engine::wait_gone(&worker.label);
    }
    until("every volume is gone", || {
        let lives = watch.containers(&cluster.dir());
        lives.values().all(|life| life.volumes.is_empty()).then_some(())
    });
    let lives = watch.containers(&cluster.dir()).into_values();
    let mut attempts: Vec<_> = lives.map(|life| (life.attempt, life.starts)).collect();
    attempts.sort();
    let all = attempts.len();
    attempts.dedup_by(|one, other| one.0 == other.0);
    assert!(attempts.len() == all && attempts.iter().all(|one| one.1 == 1), "{attempts:?}");
}

#[test]
fn c3_master_stands_still() {
    let watch = Watch::start();
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let short = submit(&cluster, "15s", &[], ONLY_FIRST_GOES_ON);
    let script = "echo begun; while ! test -e /output/go; do sleep 0.1; done; exit 5";
    let long = submit(&cluster, "10m", &[], script);
    let container = cluster.wait_container(&long, &worker);
    cluster.wait_container(&short, &worker);
    cluster.master().pause();
    // Longer than the short lease: the worker ends that attempt by itself, and only that.
    wait_life(&watch, &cluster, "task-1-a1", is_ended);
    cluster.master().resume();
    let detail = cluster.wait_success(&short);
    assert_eq!(causes(&detail), ["worker_lost", "exit"], "{detail:#}");
    assert_eq!(cluster.wait_status(&long, "running")["worker"], "worker-1");
    engine::docker(&["exec", &container, "touch", "/output/go"]).check(0, &[]);
    let detail = cluster.wait_end(&long);
    assert_eq!(detail["outcome"]["exit_code"], 5, "{detail:#}");
    assert_eq!(causes(&detail), ["exit"], "{detail:#}");
    let life = wait_life(&watch, &cluster, "task-2-a1", is_ended);
    assert_eq!((life.signals.len(), life.exit_codes), (0, vec![5]));
    check_nothing_left(&cluster, &watch, &[&worker]);
}

#[test]
fn c3_worker_stands_still() {
    let watch = Watch::start();
    let cluster = Cluster::start();
    let one = cluster.worker("worker-1", &[]);
    let task = submit(&cluster, "15s", &[], ONLY_FIRST_GOES_ON);
    cluster.wait_container(&task, &one);
    let two = cluster.worker("worker-2", &[]);
    one.process.pause();
    // It cannot stop its container, and the lease is over: the task goes on elsewhere.
    let detail = cluster.wait_success(&task);
    assert_eq!(detail["worker"], "worker-2");
    one.process.resume();
    wait_life(&watch, &cluster, "task-1-a1", |life| life.is_gone);
    until("its report is refused", || {
        (cluster.get("/status").body["stale_reports"].as_u64()? > 0).then_some(())
    });
    // What was decided stands, and the one that stood still takes work.
    let after = cluster.task(&task);
    assert_eq!((&after["outcome"], causes(&after)), (&detail["outcome"], causes(&detail)));
    assert_eq!(cluster.ok(&["logs", &task]), "try 2");
    cluster.wait_success(&cluster.submit(&["--worker", "worker-1", BUSYBOX]));
    check_nothing_left(&cluster, &watch, &[&one, &two]);
}

#[test]
fn c5_worker_gone_for_good() {
    let watch = Watch::start();
    let cluster = Cluster::start();
    let mut one = cluster.worker("worker-1", &[]);
    // The second try fails by itself; only a user's retry makes the third.
    let script = "test $CLOUDAI_ATTEMPT != 1 || sleep 600; test $CLOUDAI_ATTEMPT = 3 || exit 4";
    let task = submit(&cluster, "15s", &["--retries", "1"], script);
    cluster.wait_container(&task, &one);
    let _two = cluster.worker("worker-2", &[]);
    one.process.kill();
    cluster.wait_worker("worker-1", "inactive");
    let detail = cluster.wait_success(&task);
    assert_eq!(causes(&detail), ["worker_lost", "exit", "exit"], "{detail:#}");
    assert_eq!(detail["worker"], "worker-2");
    let second = wait_life(&watch, &cluster, "task-1-a2", is_ended);
    assert_eq!((second.worker.as_str(), second.exit_codes), ("worker-2", vec![4]));
}

#[test]
fn c6_zombie() {
    let watch = Watch::start();
    let cluster = Cluster::start();
    let proxy = Proxy::start(&cluster.grpc_address());
    let command = cluster.worker_command_via(&proxy.address(), "worker-1", &[]);
    let one = cluster.adopt_worker("worker-1", command);
    one.process.wait_for("Ready to receive tasks");
    let task = submit(&cluster, "15s", &[], ONLY_FIRST_GOES_ON);
    cluster.wait_container(&task, &one);
    let two = cluster.worker("worker-2", &[]);
    proxy.cut(Way::Both);
    let detail = cluster.wait_success(&task);
    assert_eq!((&detail["worker"], causes(&detail).len()), (&"worker-2".into(), 2), "{detail:#}");
    // The zombie had stopped its own before the other began.
    let [first, second] = ["task-1-a1", "task-1-a2"]
        .map(|attempt| wait_life(&watch, &cluster, attempt, |life| life.is_gone));
    assert!(first.ended_at.unwrap() <= second.started_at.unwrap(), "{first:?} {second:?}");
    proxy.heal();
    cluster.wait_worker("worker-1", "active");
    until("its report is refused and counted", || {
        (cluster.get("/status").body["stale_reports"].as_u64()? > 0).then_some(())
    });
    let after = cluster.task(&task);
    assert_eq!((&after["outcome"], causes(&after)), (&detail["outcome"], causes(&detail)));
    assert_eq!(cluster.ok(&["logs", &task]), "try 2");
    assert_eq!(cluster.ok(&["files", &task, "try"]), "2");
    // It takes work again at once.
    cluster.wait_success(&cluster.submit(&["--worker", "worker-1", BUSYBOX]));
    until("it keeps nothing of the old attempt", || {
        cluster.worker_leftovers("worker-1").is_empty().then_some(())
    });
    check_nothing_left(&cluster, &watch, &[&one, &two]);
}

#[test]
fn c7_cut_off_for_less_than_the_lease() {
    let watch = Watch::start();
    let cluster = Cluster::start();
    let proxy = Proxy::start(&cluster.grpc_address());
    let command = cluster.worker_command_via(&proxy.address(), "worker-1", &[]);
    let worker = cluster.adopt_worker("worker-1", command);
    worker.process.wait_for("Ready to receive tasks");
    // A second worker could take the task, if anybody thought that it was lost.
    let _other = cluster.worker("worker-2", &["--cpus", "4"]);
    let script = "i=0; while [ $i -lt 50 ]; do echo out $i; echo err $i >&2; i=$((i+1)); \
                  sleep 0.1; done; exit 6";
    let task = submit(&cluster, "60s", &["--worker", "worker-1"], script);
    wait_life(&watch, &cluster, "task-1-a1", is_started);
    cluster.wait_status(&task, "running");
    proxy.cut(Way::Both);
    wait_life(&watch, &cluster, "task-1-a1", is_ended);
    assert_eq!(cluster.task(&task)["status"], "running");
    proxy.heal();
    let detail = cluster.wait_end(&task);
    assert_eq!(detail["outcome"]["exit_code"], 6, "{detail:#}");
    assert_eq!(causes(&detail), ["exit"], "{detail:#}");
    for (name, stream) in [("out", "stdout"), ("err", "stderr")] {
        let want: Vec<_> = (0..50).map(|line| format!("{name} {line}")).collect();
        assert_eq!(cluster.log_of(&task, 1, stream), want.join("\n") + "\n");
    }
    check_nothing_left(&cluster, &watch, &[&worker]);
}
