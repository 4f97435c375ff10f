//! Floods of output and full disks: what a log keeps and marks, what it costs, and that nobody else
//! pays for it.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::path::Path;
use std::process::Command;

use cloudai_e2e::disk::SmallDisk;
use cloudai_e2e::{BUSYBOX, Cluster, Console, Process, engine, run, until};
use serde_json::json;

/// What a process may need in addition while a log of any size passes through it.
const MEMORY_MAX: u64 = 64 << 20;

/// Most memory that a process has had until now, in bytes.
fn memory_peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        // It went meanwhile.
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn shell(cluster: &Cluster, script: &str) -> String {
    cluster.submit(&["--grace", "1s", BUSYBOX, "sh", "-c", script])
}

/// The number in front of `words`.
fn number_before(text: &str, words: &str) -> u64 {
    let (before, _) = text.split_once(words).unwrap_or_else(|| panic!("no '{words}' in: {text}"));
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn c12_a_flood_keeps_its_head_and_its_tail_in_bounded_memory_and_disk() {
    const LOG_BYTES_MAX: u64 = 8 << 20;
    // By hand: CLOUDAI_E2E_FLOOD_BYTES=1000000000. What is proved does not depend on it.
    let flood = std::env::var("CLOUDAI_E2E_FLOOD_BYTES").map_or(60_000_000, |n| n.parse().unwrap());
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &["--log-bytes-max", "8MiB"]);
    let before = [memory_peak(&worker.process), memory_peak(cluster.master())];
    let line = "a line of the flood ".repeat(40);
    let script = format!("echo first; yes '{line}' | head -c {flood}; echo; echo last");
    let task = shell(&cluster, &script);
    let spool = cluster.data_dir().join("workers/worker-1/spool");
    let mut largest = 0;
    while cluster.task(&task)["outcome"].is_null() {
        // A look that is answered when the task has ended, or after a moment.
        assert_eq!(cluster.get(&format!("/tasks/{task}?wait_ms=100")).status, 200);
        largest = largest.max(size_of(&spool));
    }
    cluster.wait_success(&task);
    assert!((LOG_BYTES_MAX / 2..=LOG_BYTES_MAX).contains(&largest), "{largest} bytes of spool");
    let log = cluster.cli(&["logs", &task]);
    assert!(log.stdout.starts_with(b"first\na line of the flood"), "the head is there");
    assert!(log.stdout.ends_with(b"\nlast\n"), "the tail is there");
    let missing = number_before(&log.err(), " bytes of stdout and 0 bytes of stderr");
    let all = "first\n".len() as u64 + flood + "\nlast\n".len() as u64;
    assert_eq!(log.stdout.len() as u64 + missing, all, "every byte is there or counted");
    assert!(log.stdout.len() as u64 > LOG_BYTES_MAX * 3 / 4);
    for (before, process) in before.into_iter().zip([&worker.process, cluster.master()]) {
        let after = memory_peak(process);
        assert!(after - before < MEMORY_MAX, "from {before} to {after} bytes of memory");
    }
}

#[test]
fn c12_a_flood_does_not_delay_the_log_of_another_task() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &["--cpus", "4"]);
    let flood = ["--cpus", "0.5", "--grace", "1s", BUSYBOX, "yes", "a line of the flood"];
    let flood = cluster.submit(&flood);
    let mut command = cluster.command(&["logs", "--follow", &flood]);
    let mut follower = Process::start("a follower of the flood", &mut command);
    // From here on it is being pushed, and it does not end by itself.
    follower.wait_for("a line of the flood\n");
    let small = shell(&cluster, "echo small");
    let mut command = cluster.command(&["logs", "--follow", &small]);
    let mut reader = Process::start("a follower of the small log", &mut command);
    reader.wait_for("small\n");
    assert_eq!(reader.wait_end(), 0);
    cluster.wait_success(&small);
    assert_eq!(cluster.task(&flood)["status"], "running");
    // Nor does it delay a cancel, or the end of its own log.
    cluster.ok(&["cancel", &flood]);
    assert_eq!(cluster.wait_end(&flood)["outcome"]["cause"], "cancelled");
    assert_eq!(follower.wait_end(), 0);
}

#[test]
fn c12_a_line_of_100_mb_passes_in_pieces() {
    const LENGTH: usize = 100_000_000;
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let before = [memory_peak(&worker.process), memory_peak(cluster.master())];
    let task = shell(&cluster, &format!("head -c {LENGTH} /dev/zero | tr '\\0' x"));
    cluster.wait_success(&task);
    // A client that may not have as much memory as the line has bytes.
    let path = cluster.dir().join("line");
    let script = format!("ulimit -d 65536; exec \"$0\" logs {task} > \"{}\"", path.display());
    let mut client = Command::new("sh");
    client.arg("-c").arg(script).arg(cloudai_e2e::cloudai());
    cluster.at_home(&mut client);
    run(&mut client).check(0, &[]);
    assert!(std::fs::read(path).unwrap() == vec![b'x'; LENGTH], "the line is whole");
    for (before, process) in before.into_iter().zip([&worker.process, cluster.master()]) {
        let after = memory_peak(process);
        assert!(after - before < MEMORY_MAX, "from {before} to {after} bytes of memory");
    }
}

#[test]
fn c12_any_bytes_are_kept_as_they_are() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &[]);
    // Random bytes are binary and no UTF-8; then what drives a terminal, and an end without a line.
    let script = "head -c 3000000 /dev/urandom | tee /output/copy; \
                  printf '\\033[31mred\\033[0m\\033]0;title\\007\\r\\377\\376\\000'";
    let task = shell(&cluster, script);
    cluster.wait_success(&task);
    let copy = cluster.cli(&["files", &task, "copy"]);
    let mut all = copy.stdout;
    assert_eq!(all.len(), 3_000_000, "{}", String::from_utf8_lossy(&copy.stderr));
    all.extend_from_slice(b"\x1b[31mred\x1b[0m\x1b]0;title\x07\r\xff\xfe\0");
    assert!(cluster.cli(&["logs", &task]).stdout == all, "the log has the bytes of the task");
}

/// Lets a container go on that waits for the file `/go`.
fn let_go(container: &str) {
    engine::docker(&["exec", container, "touch", "/go"]).check(0, &[]);
}

#[test]
fn c13_a_full_store_refuses_a_submit_and_what_runs_goes_on() {
    let mut cluster = Cluster::prepare(Console::Service, &["--log-level", "debug"]);
    let disk = SmallDisk::mount(&cluster.data_dir(), 16 << 20);
    let _beside = SmallDisk::mount(&cluster.data_dir().join("workers/worker-1"), 16 << 20);
    cluster.start_master();
    let worker = cluster.worker("worker-1", &["--cpus", "4", "--storage", "100GiB"]);
    let wait = "until [ -e /go ]; do sleep 0.1; done; echo went on";
    let [long, short] = [(); 2]
        .map(|()| cluster.submit(&["--lease", "15s", "--grace", "1s", BUSYBOX, "sh", "-c", wait]));
    let [long_runs, short_runs] = [&long, &short].map(|task| cluster.wait_container(task, &worker));
    disk.fill();
    // The store may have room in files that it already has.
    let mut accepted = Vec::new();
    let body = json!({"image": BUSYBOX, "command": ["true"]});
    let submit = || {
        let answer = cluster.post(&body);
        let job = answer.body["job"].as_str().map(|job| job.replace("job", "task"));
        job.ok_or(answer)
    };
    let refusal = until("a submit is refused", || submit().map(|task| accepted.push(task)).err());
    refusal.check_error(507, "storage_full", "storage full");
    // It lives, and says why it takes nothing new.
    assert_eq!(cluster.probe("/healthz").0, 200);
    let (status, line) = cluster.probe("/readyz");
    assert!(status == 503 && line.starts_with("unready: storage full: "), "{status} {line}");
    assert!(line.contains("Free space on that disk"), "{line}");
    let_go(&short_runs);
    until("the container has ended", || {
        (engine::containers_with(&worker.label) == [long_runs.as_str()]).then_some(())
    });
    // Four heartbeats are more than a lease: what runs is not stopped for want of a full report.
    let mut mark = cluster.master().mark();
    for _ in 0..4 {
        cluster.master().wait_for_after(mark, "Heartbeat from worker worker-1");
        mark = cluster.master().mark();
    }
    assert_eq!(engine::containers_with(&worker.label), [long_runs.as_str()]);
    assert_eq!(cluster.get("/status").status, 200);
    disk.free();
    let last = until("a submit is accepted again", || submit().ok());
    until("it is ready again", || (cluster.probe("/readyz").0 == 200).then_some(()));
    let_go(&long_runs);
    for task in [&long, &short] {
        assert_eq!(cluster.wait_success(task)["attempt"], 1, "{task}");
        assert_eq!(cluster.ok(&["logs", task]), "went on");
    }
    for task in accepted.iter().chain([&last]) {
        cluster.wait_success(task);
    }
}

#[test]
fn c13_a_full_disk_of_a_worker_costs_marked_output_and_nothing_more() {
    let cluster = Cluster::start();
    let disk = SmallDisk::mount(&cluster.data_dir().join("workers/worker-1"), 8 << 20);
    let worker = cluster.worker("worker-1", &["--cpus", "4", "--storage", "100GiB"]);
    let script = "until [ -e /go ]; do sleep 0.1; done; head -c 3000000 /dev/zero; touch /said; \
                  until [ -e /end ]; do sleep 0.1; done; echo after";
    let task = shell(&cluster, &format!("echo before; {script}"));
    let container = cluster.wait_container(&task, &worker);
    until("the log begins", || (cluster.ok(&["logs", &task]) == "before").then_some(()));
    disk.fill();
    let_go(&container);
    worker.process.wait_for("Output is lost: cannot write");
    until("it has said everything", || {
        (engine::docker(&["exec", &container, "test", "-e", "/said"]).code == 0).then_some(())
    });
    // It takes no new work meanwhile, and says why.
    let waits = cluster.submit(&[BUSYBOX, "true"]);
    until("the worker says that its disk is full", || {
        cluster.ok(&["explain", &waits]).contains("the disk under").then_some(())
    });
    disk.free();
    cluster.wait_success(&waits);
    engine::docker(&["exec", &container, "touch", "/end"]).check(0, &[]);
    cluster.wait_success(&task);
    let log = cluster.cli(&["logs", &task]);
    assert!(log.stdout.starts_with(b"before\n") && log.stdout.ends_with(b"after\n"));
    let missing = number_before(&log.err(), " bytes of stdout and 0 bytes of stderr");
    assert!(log.err().contains("the disk refused them"), "{}", log.err());
    assert_eq!(log.stdout.len() as u64 + missing, 3_000_000 + 7 + 6);
}
