//! Limits that a container must really have: `docker inspect` shows them, and a task that goes
//! beyond them ends with the engine's or the kernel's own word for it.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::{BUSYBOX, Cluster, engine};

#[test]
fn b1_limits_that_inspect_shows() {
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &["--cpus", "2", "--memory", "4GiB"]);
    let limits = ["--cpus", "1.5", "--memory", "2GiB", "--pids-limit", "256"];
    let task = cluster.submit(&[&limits[..], &["--grace", "1s", BUSYBOX, "sleep", "600"]].concat());
    let container = cluster.wait_container(&task, &worker);
    let config = &engine::inspect(&container)["HostConfig"];
    // A machine with one core has no more to give.
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(config["NanoCpus"], 1_500_000_000_u64.min(cores * 1_000_000_000));
    assert_eq!(config["Memory"], 2_147_483_648_u64);
    assert_eq!(config["MemorySwap"], 2_147_483_648_u64);
    assert_eq!(config["PidsLimit"], 256);
    assert_eq!(config["SecurityOpt"][0], "no-new-privileges");
    assert_eq!(config["Privileged"], false);
    assert_eq!(config["Init"], true);
    let view = cluster.worker_view("worker-1");
    assert_eq!(view["allocated"]["cpus"], 1.5);
    assert_eq!(view["free"]["memory_bytes"], 2_147_483_648_u64);
    cluster.ok(&["cancel", &task]);
    assert_eq!(cluster.wait_end(&task)["outcome"]["cause"], "cancelled");
    engine::wait_gone(&worker.label);
    let view = cluster.worker_view("worker-1");
    assert_eq!(view["free"], view["capacity"]);
}

#[test]
fn b2_oom_from_the_record() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &[]);
    // `tail` keeps the endless line in memory.
    let task = cluster.submit(&["-m", "64MiB", BUSYBOX, "tail", "/dev/zero"]);
    let detail = cluster.wait_end(&task);
    assert_eq!(detail["status"], "failed", "{detail:#}");
    assert_eq!(detail["outcome"]["cause"], "oom", "{detail:#}");
    assert!(detail["outcome"]["exit_code"].is_null(), "{detail:#}");
    let again = cluster.cli(&["run", "-m", "64MiB", BUSYBOX, "tail", "/dev/zero"]);
    again.check(137, &["used more memory than it asked for"]);
}

#[test]
fn b3_exit_137_is_not_oom() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &[]);
    let by_code = cluster.submit(&[BUSYBOX, "sh", "-c", "exit 137"]);
    let by_signal = cluster.submit(&[BUSYBOX, "sh", "-c", "kill -9 $$"]);
    for task in [by_code, by_signal] {
        let outcome = &cluster.wait_end(&task)["outcome"];
        assert_eq!((&outcome["cause"], &outcome["exit_code"]), (&"exit".into(), &137.into()));
    }
}

#[test]
fn b4_fork_bomb() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &[]);
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 3; exit 7";
    let limits = ["--pids-limit", "64", "--timeout", "30s", "--grace", "1s"];
    let task = cluster.submit(&[&limits[..], &[BUSYBOX, "sh", "-c", bomb]].concat());
    cluster.wait_status(&task, "running");
    // The machine and the worker go on meanwhile.
    cluster.wait_success(&cluster.submit(&[BUSYBOX, "true"]));
    let detail = cluster.wait_end(&task);
    assert_eq!(detail["status"], "failed", "{detail:#}");
    assert_ne!(detail["outcome"]["cause"], "infra", "{detail:#}");
    cluster.wait_success(&cluster.submit(&[BUSYBOX, "true"]));
}
