//! The eighteen scenarios of the specification, and what goes with them, each with the words that
//! a person would see. TESTING.md says how to do each by hand.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::process::Command;
use std::time::{Duration, Instant};

use cloudai_e2e::{
    BUSYBOX, Cluster, Console, Process, SAMPLE, Worker, empty_registry, engine, links, root, run,
    until,
};
use serde_json::Value;

/// A master that is spoken to as at `master>`, with its workers.
fn with_workers(ids: &[&str]) -> (Cluster, Vec<Worker>) {
    let cluster = Cluster::start_with(Console::Script, &["--repl"]);
    let workers = ids.iter().map(|id| cluster.worker(id, &[])).collect();
    (cluster, workers)
}

/// Ends a worker by Ctrl-C: it must end well and leave nothing behind.
#[track_caller]
fn end_worker(mut worker: Worker) {
    worker.process.interrupt();
    worker.process.wait_for("Shutting down worker...");
    assert_eq!(worker.process.wait_end(), 0, "{}", worker.process.said());
    assert!(engine::containers_with(&worker.label).is_empty(), "a container is left");
}

#[test]
fn a00_tools_and_images() {
    engine::require();
    for tool in [["cargo", "--version"], ["docker", "version"]] {
        assert_eq!(run(Command::new(tool[0]).arg(tool[1])).code, 0, "{tool:?}");
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut codegen = Command::new(cargo);
    codegen.current_dir(root()).args(["xtask", "codegen", "--check"]);
    run(&mut codegen).check(0, &[]);
    let sample = engine::docker(&["run", "--rm", "--network", "none", SAMPLE]);
    sample.check(0, &["Step 1/10", "Task completed successfully!"]);
}

#[test]
fn a01_master_starts() {
    let mut cluster = Cluster::prepare(Console::Script, &[]);
    let (master_node, _) = links(&cluster.dir());
    let mut command = Command::new(master_node);
    cluster.at_home(&mut command);
    command.env("CLOUDAI_DATA", cluster.data_dir());
    command.env("CLOUDAI_GRPC_PORT", "0").env("CLOUDAI_HTTP_PORT", "0");
    cluster.adopt_master(command);
    let port = cluster.grpc_address().split_once(':').unwrap().1.to_owned();
    let store = cluster.data_dir();
    cluster.master().wait_for_all(&[
        "SQLite",
        &store.to_string_lossy(),
        &format!("Starting gRPC server on :{port}"),
        "Master node started successfully",
        &format!("gRPC server listening on :{port}"),
        "CloudAI Master Node - Interactive CLI",
        "Type 'help' for available commands",
        "master>",
    ]);
    let config = cluster.ok(&["config"]);
    for default in ["50051", "8080", "50052"] {
        assert!(config.contains(default), "no default of {default}:\n{config}");
    }
}

#[test]
fn a02_cli() {
    let (mut cluster, _) = with_workers(&[]);
    cluster.ask(
        "help",
        &[
            "task <worker> <image>",
            "task <image>",
            "workers",
            "status",
            "dispatch",
            "monitor",
            "cancel",
            "list-tasks",
            "queue",
            "stats",
            "help",
            "exit",
        ],
    );
    let nothing = ["Total workers: 0", "Active workers: 0", "Running tasks: 0"];
    cluster.ask("status", &nothing);
    cluster.ask("workers", &["No workers registered yet"]);
    cluster.cli(&["workers"]).check(0, &["No workers registered yet"]);
}

#[test]
fn a03_worker_starts() {
    let cluster = Cluster::start_with(Console::Script, &["--log-level", "debug"]);
    let (_, worker_node) = links(&cluster.dir());
    let mut command = Command::new(worker_node);
    cluster.at_home(&mut command);
    let master = cluster.grpc_address().replace("127.0.0.1", "localhost");
    command.env("CLOUDAI_DATA", cluster.data_dir());
    command.args(["-id", "worker-1", "-ip", "localhost", "-master", &master, "-port", ":0"]);
    let worker = Process::start("worker-1", &mut command);
    worker.wait_for_all(&[
        "Starting Worker Node: worker-1",
        &format!("Master Address: {master}"),
        "Worker registered successfully",
        "Starting telemetry monitor (interval: 5s)",
        "Worker worker-1 started successfully",
        "gRPC server listening on :",
        "Ready to receive tasks",
    ]);
    cluster.master().wait_for("Worker registration: worker-1 (IP: localhost, CPU: ");
    let line = cluster.master().wait_for_rest("Worker registration: worker-1 ");
    assert!(line.contains("Memory: ") && line.contains(" GB"), "{line}");
    check_capacity(&cluster.worker_view("worker-1")["capacity"]);
    // Real usage moves: no two heartbeats tell the same for ever.
    let usage = || {
        let usage = cluster.worker_view("worker-1")["usage"].clone();
        (!usage.is_null()).then_some(usage)
    };
    let first = until("the first usage", usage);
    assert!(first["memory"].as_f64().unwrap() > 0.0, "{first}");
    until("another usage", || usage().filter(|usage| *usage != first));
    cluster.master().wait_for("Heartbeat from worker worker-1");
    cluster.cli(&["workers"]).check(0, &["worker-1", "Last heard: "]);
}

/// What a worker offers is what this machine has, or what its control group leaves it.
fn check_capacity(capacity: &Value) {
    let cores = std::thread::available_parallelism().unwrap().get();
    let cpus = capacity["cpus"].as_f64().unwrap();
    assert!(cpus > 0.0 && cpus <= cores as f64, "{capacity} of {cores} cores");
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = info.split_whitespace().nth(1).unwrap().parse().unwrap();
    let memory = capacity["memory_bytes"].as_u64().unwrap();
    assert!(memory > 0 && memory <= total * 1024, "{capacity} of {total} KiB");
    assert!(capacity["storage_bytes"].as_u64().unwrap() > 0, "{capacity}");
}

#[test]
fn a04_workers() {
    let (mut cluster, workers) = with_workers(&["worker-1"]);
    let port = workers[0].process.wait_for_rest("gRPC server listening on :");
    let address = format!("localhost:{port}");
    let words = [
        "worker-1",
        "Active",
        &address,
        "TOTAL",
        "ALLOCATED",
        "FREE",
        "CPU",
        "Memory",
        "Storage",
        "GPU",
        "Running tasks: 0",
    ];
    cluster.ask("workers", &words);
    cluster.cli(&["workers"]).check(0, &words);
    let view = cluster.worker_view("worker-1");
    assert_eq!(view["status"], "active");
    assert_eq!(view["capacity"], view["free"]);
    assert_eq!(view["allocated"]["cpus"], 0.0);
}

#[test]
fn a05_status() {
    let (mut cluster, _workers) = with_workers(&["worker-1"]);
    let one = ["Total workers: 1", "Active workers: 1", "Running tasks: 0"];
    cluster.ask("status", &one);
}

#[test]
fn a06_task() {
    let (mut cluster, workers) = with_workers(&["worker-1"]);
    cluster.ask(
        &format!("task worker-1 {BUSYBOX} -- sh -c 'echo sum $((40+2))'"),
        &[
            "Assigning task to worker worker-1...",
            &format!("Docker Image: {BUSYBOX}"),
            "Task task-1 assigned successfully!",
            "Task completion: task-1 from worker worker-1 [Status: success]",
        ],
    );
    workers[0].process.wait_for_all(&[
        &format!("Task received: task-1 (image: {BUSYBOX})"),
        "Pulling image",
        "Creating container",
        "Starting container",
        "Waiting for container",
        "Container completed",
        "Task completed: task-1",
        "Task result reported: task-1",
    ]);
    cluster.ask("logs task-1", &["sum 42"]);
    assert_eq!(cluster.ok(&["logs", "1"]), "sum 42");
}

#[test]
fn a07_second_task() {
    let (mut cluster, _workers) = with_workers(&["worker-1"]);
    for number in 1..=2 {
        let line = format!("task worker-1 {BUSYBOX} -- sh -c 'echo sum $((40+{number}))'");
        cluster.ask(&line, &[&format!("Task task-{number} assigned successfully!")]);
    }
    for number in 1..=2 {
        let task = format!("task-{number}");
        cluster.wait_success(&task);
        assert_eq!(cluster.ok(&["logs", &task]), format!("sum {}", 40 + number));
    }
}

#[test]
fn a08_second_worker() {
    let (mut cluster, workers) = with_workers(&["worker-1", "worker-2"]);
    cluster.ask("workers", &["worker-1", "worker-2"]);
    cluster.ask("status", &["Total workers: 2", "Active workers: 2"]);
    let line = format!("task worker-2 {BUSYBOX} -- sleep 1");
    cluster.ask(&line, &["Task task-1 assigned successfully!"]);
    let container = cluster.wait_container("task-1", &workers[1]);
    let labels = &engine::inspect(&container)["Config"]["Labels"];
    assert_eq!(labels["cloudai.worker"], "worker-2");
    assert_eq!(cluster.wait_success("task-1")["worker"], "worker-2");
    workers[1].process.wait_for("Task received: task-1");
    assert!(!workers[0].process.said().contains("Task received"), "worker-1 ran it as well");
}

#[test]
fn a09_five_tasks() {
    let (mut cluster, _workers) = with_workers(&["worker-1"]);
    for number in 1..=5 {
        let line = format!("task worker-1 {BUSYBOX} -- sh -c 'echo sum $((40+{number}))'");
        cluster.master_mut().say(&line);
    }
    for number in 1..=5 {
        let task = format!("task-{number}");
        cluster.master().wait_for(&format!("Task {task} assigned successfully!"));
        cluster.wait_success(&task);
        assert_eq!(cluster.ok(&["logs", &task]), format!("sum {}", 40 + number));
    }
    assert_eq!(cluster.get("/status").body["tasks"]["succeeded"], 5);
}

#[test]
fn a10_worker_comes_back() {
    let (mut cluster, mut workers) = with_workers(&["worker-1"]);
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
    // Gone without a word, as when its machine loses power.
    workers[0].process.kill();
    let gone = Instant::now();
    cluster.wait_worker("worker-1", "inactive");
    assert!(gone.elapsed() < Duration::from_secs(20), "only after {:?}", gone.elapsed());
    cluster.ask("status", &["Total workers: 1", "Active workers: 0", "Inactive workers: 1"]);
    cluster.ask("workers", &["worker-1  Inactive", "Gets no new work: not heard"]);
    let waiting = cluster.submit(&[BUSYBOX]);
    let worker = cluster.worker("worker-1", &[]);
    cluster.wait_worker("worker-1", "active");
    cluster.wait_success(&waiting);
    // Gone in good order.
    end_worker(worker);
    cluster.wait_worker("worker-1", "inactive");
    let worker = cluster.worker("worker-1", &[]);
    cluster.ask("status", &["Total workers: 1", "Active workers: 1"]);
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
    // Only cut off: the process itself comes back without being started.
    let mark = worker.process.mark();
    assert_eq!(cluster.stop_master(), 0);
    worker.process.wait_for_after(mark, "Next try in");
    cluster.start_master();
    worker.process.wait_for_after(mark, "Worker registered successfully");
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
}

#[test]
fn a11_clean_end() {
    let (mut cluster, workers) = with_workers(&["worker-1"]);
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
    // A container runs when the worker is stopped: it does not stay behind.
    let running = cluster.submit(&["--grace", "1s", BUSYBOX, "sleep", "600"]);
    cluster.wait_container(&running, &workers[0]);
    for worker in workers {
        end_worker(worker);
    }
    cluster.master_mut().say("exit");
    cluster.master().wait_for("Shutting down master...");
    assert_eq!(cluster.master_mut().wait_end(), 0);
    let said = cluster.master().said();
    assert!(!said.contains("ERROR") && !said.contains("panicked"), "{said}");
}

#[test]
fn a12_restart() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let done = cluster.submit(&[BUSYBOX, "sh", "-c", "echo sum $((40+2)) >&2; exit 3"]);
    cluster.wait_end(&done);
    let waiting = cluster.submit(&["--cpus", "1000", BUSYBOX]);
    let running = cluster.submit(&[BUSYBOX, "sleep", "600"]);
    let container = cluster.wait_container(&running, &worker);
    let before = [cluster.task(&done), cluster.task(&waiting)];
    let mark = worker.process.mark();
    assert_eq!(cluster.stop_master(), 0);
    cluster.start_master();
    cluster.master().wait_for("Restored: open jobs 2, waiting tasks 1, on workers 1");
    worker.process.wait_for_after(mark, "Worker registered successfully");
    assert_eq!([cluster.task(&done), cluster.task(&waiting)], before);
    assert_eq!(before[0]["outcome"]["exit_code"], 3);
    cluster.cli(&["logs", &done]).check(0, &["sum 42"]);
    cluster.cli(&["workers"]).check(0, &["worker-1  Active"]);
    // The container never noticed.
    assert_eq!(cluster.wait_container(&running, &worker), container);
    cluster.ok(&["cancel", &running]);
    assert_eq!(cluster.wait_end(&running)["status"], "cancelled");
    let next = cluster.submit(&[BUSYBOX]);
    assert_eq!(next, "task-4");
    cluster.wait_success(&next);
}

#[test]
fn a13_unknown_image() {
    let (mut cluster, _workers) = with_workers(&["worker-1"]);
    let registry = empty_registry();
    let image = format!("{registry}/no/such/image:none");
    cluster.ask(
        &format!("task worker-1 {image}"),
        &["Task completion: task-1 from worker worker-1 [Status: failed]"],
    );
    let detail = cluster.wait_end("task-1");
    assert_eq!(
        (&detail["status"], &detail["outcome"]["cause"]),
        (&"failed".into(), &"image".into())
    );
    let message = detail["outcome"]["message"].as_str().unwrap();
    assert!(message.contains(&image) && message.contains("manifest unknown"), "{message}");
    cluster.cli(&["task", "show", "1"]).check(0, &["failed (image)", &registry]);
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
}

#[test]
fn a14_unknown_worker() {
    let (mut cluster, _workers) = with_workers(&["worker-1"]);
    let line = format!("task worker-99 {BUSYBOX}");
    cluster.ask(&line, &["Worker 'worker-99' not found"]);
    let ran = cluster.cli(&["submit", "--worker", "worker-99", BUSYBOX]);
    ran.check(125, &["Worker 'worker-99' not found"]);
    cluster.cli(&["tasks"]).check(0, &["No tasks"]);
    assert_eq!(cluster.submit(&[BUSYBOX]), "task-1");
}

#[test]
fn a15_no_master() {
    let mut cluster = Cluster::start();
    assert_eq!(cluster.stop_master(), 0);
    let begun = Instant::now();
    let once = run(&mut cluster.worker_command("worker-1", &["--once"]));
    assert_ne!(once.code, 0);
    once.check(once.code, &["Failed to register with master"]);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let mut worker = cluster.starting_worker("worker-1", &[]);
    let mark = worker.process.mark();
    worker.process.wait_for("Failed to register with master");
    worker.process.wait_for_after(mark, "Next try in");
    assert!(worker.process.is_running());
    cluster.start_master();
    worker.process.wait_for("Ready to receive tasks");
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
}

#[test]
fn a16_heartbeats() {
    let cluster = Cluster::start_with(Console::Service, &["--log-level", "debug"]);
    let _worker = cluster.worker("worker-1", &[]);
    let mut mark = cluster.master().mark();
    let mut beats = Vec::new();
    // Seven moments hold six intervals: half a minute.
    for _ in 0..7 {
        cluster.master().wait_for_after(mark, "Heartbeat from worker worker-1");
        mark = cluster.master().mark();
        beats.push(Instant::now());
    }
    let gaps: Vec<_> = beats.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect();
    for gap in &gaps {
        assert!((3.0..8.0).contains(&gap.as_secs_f64()), "not evenly: {gaps:?}");
    }
    let all = beats[6].duration_since(beats[0]).as_secs_f64();
    assert!((26.0..36.0).contains(&all), "six in {all} s: {gaps:?}");
}

#[test]
fn a17_sample_task() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &[]);
    cluster.cli(&["run", SAMPLE]).check(0, &["Step 10/10", "Task completed successfully!"]);
    let detail = cluster.wait_success("task-1");
    let ms = |name: &str| detail[name].as_u64().unwrap();
    let took = ms("finished_at_ms") - ms("submitted_at_ms");
    // 10 to 15 s on a quiet machine; the upper bound is loose for one that does other things.
    assert!((10_000..30_000).contains(&took), "{took} ms");
    assert_eq!(detail["files"][0]["path"], "result.json");
    let result: Value =
        serde_json::from_str(&cluster.ok(&["files", "task-1", "result.json"])).unwrap();
    assert!((3.0..3.3).contains(&result["pi"].as_f64().unwrap()), "{result}");
}

#[test]
fn a18_end_to_end() {
    let (mut cluster, mut workers) = with_workers(&["worker-1"]);
    cluster.master().wait_for("SQLite");
    let first = format!("task worker-1 {SAMPLE}");
    cluster.ask(&first, &["Task task-1 assigned successfully!"]);
    cluster.wait_status("task-1", "running");
    workers.push(cluster.worker("worker-2", &[]));
    let second = format!("task worker-2 {SAMPLE} -name second -cpu_cores 0.5 -mem 0.25");
    cluster.ask(&second, &["Task task-2 assigned successfully!"]);
    for task in ["task-1", "task-2"] {
        let detail = cluster.wait_success(task);
        assert_eq!(detail["worker"], task.replace("task", "worker"));
        assert_eq!(detail["files"][0]["path"], "result.json");
        cluster.ask(&format!("logs {task}"), &["Task completed successfully!"]);
    }
    let spec = &cluster.task("task-2")["spec"]["needs"];
    assert_eq!((&spec["cpus"], &spec["memory_bytes"]), (&0.5.into(), &(1_u64 << 28).into()));
    for worker in workers {
        end_worker(worker);
    }
    cluster.master_mut().say("exit");
    assert_eq!(cluster.master_mut().wait_end(), 0);
}

#[test]
fn a19_scheduler_chooses() {
    let (mut cluster, _workers) = with_workers(&["worker-1", "worker-2"]);
    let line = format!("task {BUSYBOX} -name chosen");
    cluster.ask(&line, &[&format!("Docker Image: {BUSYBOX}"), "Task task-1 "]);
    let detail = cluster.wait_success("task-1");
    let worker = detail["worker"].as_str().unwrap();
    assert!(["worker-1", "worker-2"].contains(&worker), "{detail:#}");
    assert_eq!(detail["name"], "chosen");
}

#[test]
fn a20_unknown_command_and_usage() {
    let (mut cluster, _) = with_workers(&[]);
    cluster.ask("x", &["Unknown command: x"]);
    cluster.ask("task", &["Usage: task "]);
    cluster.ask("task a b c", &["Usage: task "]);
    // None of them was an end: the prompt goes on.
    cluster.ask("workers", &["No workers registered yet"]);
    let shell = cluster.cli(&["x"]);
    shell.check(2, &["unrecognized subcommand 'x'"]);
}

#[test]
fn a21_script_on_stdin() {
    let mut cluster = Cluster::start_with(Console::Script, &[]);
    let _worker = cluster.worker("worker-1", &[]);
    let script = [
        "# a comment says nothing",
        "status",
        &format!("task worker-1 {BUSYBOX} -- sh -c 'echo sum $((40+2))'"),
        "monitor 1",
        "list-tasks succeeded",
        "exit",
    ];
    for line in script {
        cluster.master_mut().say(line);
    }
    assert_eq!(cluster.master_mut().wait_end(), 0);
    let said = cluster.master().said();
    let mut rest = said.as_str();
    let in_order = [
        "Total workers: 1",
        "Task task-1 assigned successfully!",
        "sum 42",
        "task-1 succeeded",
        "task-1  succeeded",
        "Shutting down master...",
    ];
    for text in in_order {
        let place = rest.find(text).unwrap_or_else(|| panic!("no '{text}' in its place:\n{said}"));
        rest = &rest[place + text.len()..];
    }
    // A terminal is no different.
    let mut cluster = Cluster::start_with(Console::Terminal, &[]);
    cluster.master().wait_for("master>");
    for (line, answer) in [("workers\r", "No workers registered yet"), ("exit\r", "Shutting down")]
    {
        for key in line.bytes() {
            cluster.master_mut().press(key);
        }
        cluster.master().wait_for(answer);
    }
    assert_eq!(cluster.master_mut().wait_end(), 0);
}

#[test]
fn a22_end_of_stdin_does_not_stop_a_service() {
    // A script that ends without a word of stopping.
    let mut cluster = Cluster::start_with(Console::Script, &[]);
    cluster.master_mut().say("workers");
    cluster.master_mut().end_input();
    cluster.master().wait_for("No workers registered yet");
    cluster.cli(&["status"]).check(0, &["Total workers: 0"]);
    let _worker = cluster.worker("worker-1", &[]);
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
    assert!(cluster.master_mut().is_running());
    assert_eq!(cluster.stop_master(), 0);
    // No input at all.
    let mut service = Cluster::start();
    assert_eq!(service.get("/health").body["ready"], true);
    assert!(!service.master().said().contains("master>"), "a service shows no prompt");
    service.master().interrupt();
    assert_eq!(service.master_mut().wait_end(), 0);
}
