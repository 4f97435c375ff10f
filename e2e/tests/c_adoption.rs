//! C4 and C6 of the acceptance scenarios: a worker is killed and started again, and meanwhile
//! something happens to what it held. Whatever that was goes on or is told, exactly once; nothing
//! is left over. The steps of an attempt at which it can be killed are enumerated in
//! `c_crash_points.rs`.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloudai_e2e::{BUSYBOX, Cluster, Process, Worker, engine, until};
use serde_json::{Value, json};

/// Writes lines on both streams, a file, and fails with a code of its own. `go` ends the waiting.
const TASK: &str = "echo first; echo error >&2; echo content >/output/file; \
                    while [ -e /output/wait ]; do sleep 0.05; done; echo last; exit 7";
/// What it writes.
const OUT: &str = "first\nlast\n";

/// A cluster with one worker, of which every container that is ever made is seen.
struct World {
    cluster: Cluster,
    worker: Worker,
    events: Process,
}

impl World {
    fn start() -> Self {
        let cluster = Cluster::start();
        let label = cluster.worker_label("worker-1");
        let events = Process::start(
            "docker events",
            Command::new("docker").args([
                "events",
                "--since",
                "0s",
                "--filter",
                &format!("label={label}"),
                "--filter",
                "type=container",
                "--format",
                "{{.Action}} {{.Actor.ID}}",
            ]),
        );
        let worker = cluster.worker("worker-1", &[]);
        Self { cluster, worker, events }
    }

    fn submit(&self, script: &str) -> String {
        self.cluster.submit(&[BUSYBOX, "sh", "-c", script])
    }

    /// Submits a task that waits to be let go, and waits until it has written its first line.
    fn submit_waiting(&self) -> (String, String) {
        let task = self.submit(&format!("touch /output/wait; {TASK}"));
        let container = self.cluster.wait_container(&task, &self.worker);
        until("its first line", || {
            engine::docker(&["logs", &container]).out().contains("first").then_some(())
        });
        (task, container)
    }

    fn restart_worker(&mut self) {
        self.worker.process.kill();
        self.worker = self.cluster.worker("worker-1", &[]);
    }

    /// How often something was done with containers of the worker.
    fn count(&self, action: &str) -> usize {
        self.events.said().lines().filter(|line| line.starts_with(action)).count()
    }

    /// One attempt, one start, the end of `TASK`, all that it wrote once, and nothing left over.
    #[track_caller]
    fn check_whole(&self, task: &str) -> Value {
        let detail = self.cluster.wait_end(task);
        assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 7}), "{detail:#}");
        assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
        let log = self.cluster.cli(&["logs", task]);
        assert_eq!((log.out().as_str(), log.err().as_str()), (OUT, "error\n"));
        assert_eq!(self.cluster.ok(&["files", task, "file"]), "content");
        self.check_gone();
        assert_eq!(self.count("start "), 1, "{}", self.events.said());
        detail
    }

    /// No container, record, log or output is left on the worker.
    fn check_gone(&self) {
        engine::wait_gone(&self.worker.label);
        let home = self.cluster.data_dir().join("workers/worker-1");
        let is_empty = |name: &str| entries(&home.join(name)).is_empty();
        until("the worker's folder is empty", || {
            ["attempts", "spool", "output"].iter().all(|name| is_empty(name)).then_some(())
        });
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn let_go(container: &str) {
    let ran = engine::docker(&["exec", container, "rm", "/output/wait"]);
    assert_eq!(ran.code, 0, "{}", ran.err());
}

/// A name of an image; it is gone when this is dropped.
struct Tag(String);

impl Drop for Tag {
    fn drop(&mut self) {
        drop(engine::docker(&["rmi", &self.0]));
    }
}

/// More than the points at which a pulling worker dies in `c_crash_points.rs`: the pull is given up
/// with its worker, and the attempt goes on with an image that came by another way.
#[test]
fn killed_while_the_image_is_pulled_and_the_image_is_there_when_it_comes_back() {
    let mut world = World::start();
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    registry.set_nonblocking(true).unwrap();
    let image = Tag(format!("{}/late", registry.local_addr().unwrap()));
    let task = world.cluster.submit(&[&image.0, "sh", "-c", TASK]);
    let _unanswered = until("the engine asks the registry", || registry.accept().ok());
    world.worker.process.kill();
    assert_eq!(engine::docker(&["tag", BUSYBOX, &image.0]).code, 0);
    world.restart_worker();
    world.check_whole(&task);
}

#[test]
fn a_running_container_is_taken_up_and_its_log_goes_on() {
    let mut world = World::start();
    let script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.1; done; \
                  exit 7";
    let task = world.submit(script);
    let container = world.cluster.wait_container(&task, &world.worker);
    world.restart_worker();
    world.restart_worker();
    let detail = world.cluster.wait_end(&task);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 7}), "{detail:#}");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    let log = world.cluster.cli(&["logs", &task]);
    let lines = |mark| (1..=40).fold(String::new(), |text, n| format!("{text}{mark}{n}\n"));
    assert_eq!((log.out(), log.err()), (lines(""), lines("e")));
    world.check_gone();
    let said = world.events.said();
    assert!(said.contains(&format!("create {container}")), "{said}");
    assert_eq!((world.count("create "), world.count("start ")), (1, 1), "{said}");
}

#[test]
fn a_worker_is_back_before_it_has_read_its_logs_again() {
    let mut world = World::start();
    let (task, container) = world.submit_waiting();
    let first = || world.cluster.cli(&["logs", &task]).out();
    until("its first line on the master", || (first() == "first\n").then_some(()));
    world.worker.process.kill();
    let home = world.cluster.data_dir().join("workers/worker-1");
    let log = home.join(format!("spool/{task}-a1.log"));
    let [pipe, aside] = ["pipe", "log"].map(|name| home.join(name));
    std::fs::rename(&log, &aside).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::hard_link(&pipe, &log).unwrap();
    // Reading it takes as long as the pipe stays silent.
    world.worker = world.cluster.worker("worker-1", &[]);
    let_go(&container);
    std::fs::rename(&aside, &log).unwrap();
    std::fs::write(&pipe, std::fs::read(&log).unwrap()).unwrap();
    world.check_whole(&task);
}

#[test]
fn what_ended_while_the_worker_was_away_is_reported() {
    let mut world = World::start();
    let (task, container) = world.submit_waiting();
    world.worker.process.kill();
    let_go(&container);
    until("its end", || (engine::inspect(&container)["State"]["Status"] == "exited").then_some(()));
    world.restart_worker();
    world.check_whole(&task);
}

#[test]
fn an_end_that_came_of_a_stop_is_no_end_of_the_tasks_own_after_a_restart() {
    let mut world = World::start();
    let script = "test $CLOUDAI_ATTEMPT = 1 || exit 7; touch /output/wait; \
                  trap 'echo stopping; while [ -e /output/wait ]; do sleep 0.05; done; exit 0' TERM; \
                  echo up; while true; do sleep 0.05; done";
    let task = world.submit(script);
    let container = world.cluster.wait_container(&task, &world.worker);
    let wait_log = |text| {
        until(text, || engine::docker(&["logs", &container]).out().contains(text).then_some(()));
    };
    wait_log("up");
    world.worker.process.terminate();
    wait_log("stopping");
    world.worker.process.kill();
    let_go(&container);
    until("its end", || (engine::inspect(&container)["State"]["Status"] == "exited").then_some(()));
    world.restart_worker();
    let detail = world.cluster.wait_end(&task);
    assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 7}), "{detail:#}");
    assert_eq!(detail["attempts"][0]["outcome"]["cause"], "worker_lost", "{detail:#}");
    world.check_gone();
}

#[test]
fn an_end_that_was_not_reported_is_reported_by_the_next_process() {
    let mut world = World::start();
    let (task, container) = world.submit_waiting();
    world.cluster.kill_master();
    let_go(&container);
    engine::wait_gone(&world.worker.label);
    world.worker.process.kill();
    world.cluster.start_master();
    world.restart_worker();
    world.check_whole(&task);
}

#[test]
fn a_container_that_somebody_removed_meanwhile_is_not_made_again() {
    let mut world = World::start();
    let task = world.submit("test $CLOUDAI_ATTEMPT != 1 || sleep 600");
    let container = world.cluster.wait_container(&task, &world.worker);
    world.worker.process.kill();
    engine::remove(&[container]);
    world.restart_worker();
    let detail = world.cluster.wait_success(&task);
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{detail:#}");
    assert_eq!(attempts[0]["outcome"]["cause"], "infra", "{detail:#}");
    world.check_gone();
    assert_eq!(world.count("create "), 2, "{}", world.events.said());
}

#[test]
fn a_timeout_runs_on_while_the_worker_is_away() {
    let mut world = World::start();
    let task = world.cluster.submit(&["--timeout", "3s", BUSYBOX, "sh", "-c", "exec sleep 600"]);
    let container = world.cluster.wait_container(&task, &world.worker);
    world.worker.process.kill();
    world.restart_worker();
    let detail = world.cluster.wait_end(&task);
    assert_eq!(detail["outcome"]["cause"], "timeout", "{detail:#}");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    world.check_gone();
    let said = world.events.said();
    assert_eq!(world.count("start "), 1, "{said}");
    assert!(said.contains(&format!("die {container}")), "{said}");
}

#[test]
fn a_cancel_while_the_worker_is_away_wins() {
    let mut world = World::start();
    let task = world.submit("exec sleep 600");
    world.cluster.wait_container(&task, &world.worker);
    world.worker.process.kill();
    world.cluster.ok(&["cancel", &task]);
    world.restart_worker();
    let detail = world.cluster.wait_end(&task);
    assert_eq!(detail["outcome"]["cause"], "cancelled", "{detail:#}");
    world.check_gone();
    assert_eq!(world.count("start "), 1, "{}", world.events.said());
}

#[test]
fn an_attempt_that_was_placed_anew_meanwhile_is_stopped_and_does_not_count() {
    let mut world = World::start();
    let script = "test $CLOUDAI_ATTEMPT != 1 || sleep 600; echo $CLOUDAI_ATTEMPT";
    let task = world.cluster.submit(&["--lease", "15s", BUSYBOX, "sh", "-c", script]);
    world.cluster.wait_container(&task, &world.worker);
    world.worker.process.kill();
    let _other = world.cluster.worker("worker-2", &[]);
    let detail = world.cluster.wait_success(&task);
    assert_eq!(detail["worker"], "worker-2", "{detail:#}");
    world.restart_worker();
    world.check_gone();
    assert_eq!(world.cluster.task(&task)["outcome"], detail["outcome"]);
    assert_eq!(world.cluster.ok(&["logs", &task]), "2");
}

/// The record of a worker's attempt on a disk that is full.
struct FullDisk {
    record: PathBuf,
    aside: PathBuf,
}

impl FullDisk {
    fn under(world: &World, task: &str) -> Self {
        let home = world.cluster.data_dir().join("workers/worker-1");
        let record = home.join(format!("attempts/{task}-a1.record"));
        let aside = home.join("record");
        std::fs::rename(&record, &aside).unwrap();
        std::os::unix::fs::symlink("/dev/full", &record).unwrap();
        Self { record, aside }
    }

    fn has_room_again(self) {
        std::fs::rename(&self.aside, &self.record).unwrap();
    }
}

#[test]
fn an_end_that_the_disk_refuses_is_found_in_the_engine_by_the_next_process() {
    let mut world = World::start();
    let (task, container) = world.submit_waiting();
    world.cluster.kill_master();
    let disk = FullDisk::under(&world, &task);
    let_go(&container);
    world.worker.process.wait_for("Task completed: ");
    world.worker.process.kill();
    assert_eq!(engine::inspect(&container)["State"]["Status"], "exited");
    disk.has_room_again();
    world.cluster.start_master();
    world.restart_worker();
    world.check_whole(&task);
}

#[test]
fn an_end_that_the_disk_refuses_is_recorded_when_it_has_room_again() {
    let mut world = World::start();
    let (task, container) = world.submit_waiting();
    world.cluster.kill_master();
    let disk = FullDisk::under(&world, &task);
    let_go(&container);
    world.worker.process.wait_for("Task completed: ");
    disk.has_room_again();
    engine::wait_gone(&world.worker.label);
    world.worker.process.kill();
    world.cluster.start_master();
    world.restart_worker();
    world.check_whole(&task);
}

#[test]
fn an_end_that_the_disk_refuses_is_told_and_the_container_goes_when_it_is_forgotten() {
    let world = World::start();
    let (task, container) = world.submit_waiting();
    let _disk = FullDisk::under(&world, &task);
    let_go(&container);
    world.check_whole(&task);
}

#[test]
fn a_log_of_which_the_master_has_more_than_the_worker_goes_no_further() {
    let mut world = World::start();
    // The engine keeps as three records what came as one.
    let script = "printf 'a\nb\nc\n'; touch /output/wait; \
                  while [ -e /output/wait ]; do sleep 0.05; done; echo last";
    let task = world.submit(script);
    let container = world.cluster.wait_container(&task, &world.worker);
    let log = || world.cluster.cli(&["logs", &task]).out();
    until("its log on the master", || log().ends_with("c\n").then_some(()));
    world.worker.process.kill();
    let home = world.cluster.data_dir().join("workers/worker-1");
    std::fs::write(home.join(format!("spool/{task}-a1.log")), "").unwrap();
    let_go(&container);
    world.worker = world.cluster.worker("worker-1", &[]);
    let detail = world.cluster.wait_success(&task);
    assert_eq!(log(), "a\nb\nc\n");
    assert!(detail.to_string().contains("after a power failure"), "{detail:#}");
    world.check_gone();
}

#[test]
fn a_worker_that_keeps_its_tasks_is_stopped_and_started_again_under_them() {
    let mut world = World::start();
    world.worker.process.kill();
    world.worker = world.cluster.worker("worker-1", &["--on-stop", "keep"]);
    let (task, container) = world.submit_waiting();
    world.worker.process.terminate();
    assert_eq!(world.worker.process.wait_end(), 0, "{}", world.worker.process.said());
    let words = "Shutting down worker... 1 task goes on; start the worker again to take it up";
    assert!(world.worker.process.said().contains(words), "{}", world.worker.process.said());
    assert_eq!(engine::inspect(&container)["State"]["Status"], "running");
    assert_eq!(world.cluster.task(&task)["attempts"].as_array().unwrap().len(), 1);
    world.worker = world.cluster.worker("worker-1", &["--on-stop", "keep"]);
    let_go(&container);
    world.check_whole(&task);
    assert_eq!(world.count("create "), 1, "{}", world.events.said());
}
