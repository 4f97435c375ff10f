//! What a person or a script at a shell does with CloudAI, byte for byte.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::fs;

use cloudai_e2e::{BUSYBOX, Cluster, Process, Worker, engine, until};
use serde_json::{Value, json};

fn cluster_with(args: &[&str]) -> (Cluster, Worker) {
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", args);
    (cluster, worker)
}

#[test]
fn run_passes_output_and_exit_code_through() {
    let (cluster, _worker) = cluster_with(&[]);
    let script = r"printf 'out\n\000\377\200 no newline'; printf 'err\377' >&2; exit 7";
    let ran = cluster.cli(&["run", BUSYBOX, "sh", "-c", script]);
    assert_eq!(ran.code, 7, "{}", ran.err());
    assert_eq!(ran.stdout, b"out\n\0\xff\x80 no newline");
    let is_there = ran.stderr.windows(4).any(|part| part == b"err\xff");
    assert!(is_there, "{:?}", ran.err());
    // The log gives the same again, each side alone.
    let logs = cluster.cli(&["logs", "task-1"]);
    assert_eq!((logs.stdout, logs.stderr), (ran.stdout, b"err\xff".to_vec()));
    let err_only = cluster.cli(&["logs", "--stderr", "1"]);
    assert_eq!((err_only.stdout, err_only.stderr), (Vec::new(), b"err\xff".to_vec()));
    cluster.cli(&["run", BUSYBOX, "true"]).check(0, &[]);
    // A word that is no program is the task's own failure, as with docker.
    assert_eq!(cluster.cli(&["run", BUSYBOX, "no-such-program"]).code, 127);
}

#[test]
fn a_large_output_is_whole() {
    let (cluster, _worker) = cluster_with(&[]);
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done";
    let ran = cluster.cli(&["run", BUSYBOX, "sh", "-c", script]);
    let lines: Vec<String> = (0..20_000).map(|i| format!("line {i} of many\n")).collect();
    let want = lines.concat();
    assert_eq!(ran.code, 0);
    assert!(ran.out() == want, "{} of {} bytes", ran.stdout.len(), want.len());
}

#[test]
fn logs_are_followed_while_they_are_written() {
    let (cluster, worker) = cluster_with(&[]);
    let script = "echo first; sleep 2; echo last";
    let task = cluster.submit(&[BUSYBOX, "sh", "-c", script]);
    let mut command = cluster.command(&["logs", "--follow", &task]);
    let mut follower = Process::start("logs", &mut command);
    follower.wait_for("first\n");
    assert!(!follower.said().contains("last"), "it is not written yet");
    let ws = cluster.wait_container(&task, &worker);
    assert!(!ws.is_empty());
    follower.wait_for("last\n");
    assert_eq!(follower.wait_end(), 0);
    assert_eq!(follower.said(), "first\nlast\n");
}

#[test]
fn cancel_ends_a_running_task() {
    let (cluster, worker) = cluster_with(&[]);
    let script = "trap 'echo asked to stop; exit 0' TERM; while true; do sleep 0.1; done";
    let task = cluster.submit(&[BUSYBOX, "sh", "-c", script]);
    let stubborn =
        cluster.submit(&["--grace", "1s", BUSYBOX, "sh", "-c", "trap '' TERM; sleep 60"]);
    for task in [&task, &stubborn] {
        cluster.wait_container(task, &worker);
        cluster.cli(&["cancel", task]).check(0, &["1 being stopped"]);
        let detail = cluster.wait_end(task);
        assert_eq!(detail["status"], "cancelled");
        assert_eq!(detail["outcome"]["cause"], "cancelled");
        assert_eq!(cluster.cli(&["wait", task]).code, 143);
    }
    assert_eq!(cluster.ok(&["logs", &task]), "asked to stop");
    cluster.cli(&["cancel", &task]).check(0, &["1 had ended already"]);
    engine::wait_gone(&worker.label);
}

#[test]
fn cancel_takes_a_waiting_task_out_of_the_queue() {
    let (cluster, _worker) = cluster_with(&[]);
    let task = cluster.submit(&["--cpus", "1000", BUSYBOX]);
    cluster.cli(&["cancel", "1"]).check(0, &["task-1: 1 cancelled"]);
    assert_eq!(cluster.wait_end(&task)["status"], "cancelled");
    cluster.submit(&["--array", "1-4", "--cpus", "1000", BUSYBOX]);
    cluster.cli(&["cancel", "2.3"]).check(0, &["task-2.3: 1 cancelled"]);
    cluster.cli(&["cancel", "2"]).check(0, &["job-2: 3 cancelled, 1 had ended already"]);
    cluster.cli(&["cancel", "9"]).check(125, &["there is no job-9"]);
    assert_eq!(cluster.ok(&["queue"]), "The queue is empty");
}

#[test]
fn an_array_gives_each_task_its_index() {
    let (cluster, _worker) = cluster_with(&[]);
    let script =
        "echo I am $CLOUDAI_ARRAY_INDEX of $CLOUDAI_JOB_ID; test $CLOUDAI_ARRAY_INDEX != 3";
    let submitted =
        cluster.cli(&["submit", "--array", "2-5%2", "--cpus", "0.1", BUSYBOX, "sh", "-c", script]);
    submitted.check(0, &["job-1", "4 tasks, from task-1.2"]);
    let waited = cluster.cli(&["wait", "1"]);
    waited.check(1, &["3 succeeded, 1 failed"]);
    for index in 2..=5 {
        let log = cluster.ok(&["logs", &format!("1.{index}")]);
        assert_eq!(log, format!("I am {index} of job-1"));
    }
    assert_eq!(cluster.cli(&["wait", "1.3"]).code, 1);
    assert_eq!(cluster.cli(&["wait", "1.4"]).code, 0);
    let page = cluster.get("/tasks?job=1&status=failed").body;
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(1), "{page:#}");
}

#[test]
fn wait_gives_the_exit_code_or_gives_up() {
    let (cluster, _worker) = cluster_with(&[]);
    let task = cluster.submit(&[BUSYBOX, "sh", "-c", "sleep 1; exit 5"]);
    cluster.cli(&["wait", &task]).check(5, &["task-1 failed (exit 5)"]);
    let waiting = cluster.submit(&["--cpus", "1000", BUSYBOX]);
    let late = cluster.cli(&["wait", "--timeout", "300ms", &waiting]);
    late.check(124, &["gave up waiting"]);
}

#[test]
fn json_output_can_be_parsed() {
    let (cluster, _worker) = cluster_with(&[]);
    let json = |args: &[&str]| -> Value {
        let text = cluster.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}:\n{text}"))
    };
    let submitted = json(&["--json", "submit", "--name", "x", BUSYBOX, "sh", "-c", "echo hello"]);
    assert_eq!(submitted["first_task"], "task-1");
    assert_eq!(json(&["wait", "1", "--json"])["status"], "succeeded");
    assert_eq!(json(&["tasks", "--json"])["tasks"][0]["name"], "x");
    assert_eq!(json(&["task", "show", "1", "--json"])["outcome"]["exit_code"], 0);
    assert_eq!(json(&["workers", "--json"])["workers"][0]["id"], "worker-1");
    assert_eq!(json(&["workers", "worker-1", "--json"])["status"], "active");
    assert_eq!(json(&["status", "--json"])["tasks"]["succeeded"], 1);
    assert_eq!(json(&["queue", "--json"])["waiting"], 0);
    assert_eq!(json(&["explain", "1", "--json"])["status"], "succeeded");
    assert_eq!(json(&["files", "1", "--json"])["files"], json!([]));
    assert_eq!(json(&["cancel", "1", "--json"])["already_ended"], 1);
    assert!(json(&["config", "--json"]).as_array().is_some_and(|list| !list.is_empty()));
    let log = cluster.ok(&["logs", "1", "--json"]);
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["text"], "hello\n");
}

#[test]
fn the_same_request_id_gives_the_same_job() {
    let (cluster, _worker) = cluster_with(&[]);
    let request = json!({"request_id": "nightly-1", "image": BUSYBOX, "command": ["true"]});
    let first = cluster.post(&request);
    assert_eq!((first.status, &first.body["existing"]), (201, &json!(false)), "{first:?}");
    let again = cluster.post(&request);
    assert_eq!((again.status, &again.body["existing"]), (200, &json!(true)), "{again:?}");
    assert_eq!(again.body["job"], first.body["job"]);
    cluster.wait_success("task-1");
    // Long after its end it is still known, and other content under it is a mistake.
    assert_eq!(cluster.post(&request).body["job"], first.body["job"]);
    let other = json!({"request_id": "nightly-1", "image": BUSYBOX, "command": ["false"]});
    cluster.post(&other).check_error(409, "conflict", "another content");
    assert_eq!(cluster.get("/jobs").body["jobs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn log_and_files_outlive_the_worker() {
    let (cluster, mut worker) = cluster_with(&[]);
    let script = "echo kept; mkdir -p /output/a; echo result >/output/a/b; ln -s /etc /output/l";
    let task = cluster.submit(&[BUSYBOX, "sh", "-c", script]);
    let detail = cluster.wait_success(&task);
    worker.process.interrupt();
    assert_eq!(worker.process.wait_end(), 0);
    fs::remove_dir_all(cluster.data_dir().join("workers")).unwrap();
    assert_eq!(cluster.ok(&["logs", &task]), "kept");
    assert_eq!(detail["files"], json!([{"path": "a/b", "size_bytes": 7}]));
    cluster.cli(&["files", &task]).check(0, &["a/b", "7 B"]);
    assert_eq!(cluster.cli(&["files", &task, "a/b"]).stdout, b"result\n");
    let to = cluster.dir().join("fetched");
    cluster.ok(&["files", &task, "a/b", "--output", to.to_str().unwrap()]);
    assert_eq!(fs::read(to).unwrap(), b"result\n");
    cluster.cli(&["files", &task, "../a"]).check(125, &["error:"]);
}

#[test]
fn only_declared_volumes_are_mounted() {
    let cluster = Cluster::start();
    let folder = cluster.dir().join("shared");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("in"), "given\n").unwrap();
    let declared = format!("data={}", folder.display());
    let _worker = cluster.worker("worker-1", &["--volume", &declared]);
    let read = ["run", "-v", "data:/mnt:ro", BUSYBOX, "sh", "-c"];
    let script = "cat /mnt/in; touch /mnt/x 2>/dev/null || echo read-only";
    cluster.cli(&[&read[..], &[script]].concat()).check(0, &["given\nread-only\n"]);
    let write = ["run", "-v", "data:/mnt", BUSYBOX, "sh", "-c", "echo back >/mnt/out"];
    cluster.cli(&write).check(0, &[]);
    assert_eq!(fs::read(folder.join("out")).unwrap(), b"back\n");
    // A name that no worker declared waits, and says for what.
    let waiting = cluster.submit(&["-v", "models:/mnt", BUSYBOX]);
    cluster.cli(&["explain", &waiting]).check(0, &["worker-1: has no volume 'models'"]);
}

#[test]
fn no_network_means_loopback_only() {
    let (cluster, _worker) = cluster_with(&[]);
    let list = ["run", "--network", "none", BUSYBOX, "ls", "/sys/class/net"];
    assert_eq!(cluster.ok(&list), "lo");
    let default = cluster.ok(&["run", BUSYBOX, "ls", "/sys/class/net"]);
    assert!(default.contains("eth0"), "{default}");
}

#[test]
fn a_timeout_stops_a_task() {
    let (cluster, worker) = cluster_with(&[]);
    let slow = ["run", "--timeout", "1s", "--grace", "1s", BUSYBOX, "sh", "-c"];
    let ran = cluster.cli(&[&slow[..], &["echo begun; trap '' TERM; sleep 60"]].concat());
    ran.check(124, &["begun", "ran longer than its --timeout"]);
    assert_eq!(cluster.wait_end("task-1")["outcome"]["cause"], "timeout");
    engine::wait_gone(&worker.label);
}

#[test]
fn environment_and_arguments_arrive_as_they_are() {
    let (cluster, _worker) = cluster_with(&[]);
    let script =
        r#"echo "[$A] [$B] [$1] [$2] $CLOUDAI_TASK_ID $CLOUDAI_ATTEMPT $CLOUDAI_WORKER_ID""#;
    let words = ["-e", "A=two words", "-e", "B=", BUSYBOX, "sh", "-c", script];
    let more = ["name", "an argument", "'quoted' \"twice\" $HOME"];
    let out = cluster.ok(&[&["run"], &words[..], &more[..]].concat());
    assert_eq!(out, r#"[two words] [] [an argument] ['quoted' "twice" $HOME] task-1 1 worker-1"#);
    assert_eq!(cluster.ok(&["run", "-c", "echo $((6*7)) | tr 4 5", BUSYBOX]), "52");
}

#[test]
fn a_failing_task_is_tried_again_as_often_as_it_may_be() {
    let (cluster, _worker) = cluster_with(&[]);
    let script = "echo try $CLOUDAI_ATTEMPT; test $CLOUDAI_ATTEMPT = 3";
    let task = cluster.submit(&["--retries", "2", BUSYBOX, "sh", "-c", script]);
    let detail = cluster.wait_success(&task);
    assert_eq!(detail["attempts"].as_array().map(Vec::len), Some(3), "{detail:#}");
    assert_eq!(cluster.ok(&["logs", &task]), "try 3");
    assert_eq!(cluster.ok(&["logs", "--attempt", "1", &task]), "try 1");
}

#[test]
fn up_is_a_master_and_a_worker() {
    engine::require();
    let mut cluster = Cluster::prepare(cloudai_e2e::Console::Service, &[]);
    let data = cluster.data_dir();
    let mut command = cluster.command(&["up", "--no-repl", "--worker-id", "here"]);
    command.args(["--grpc-port", "0", "--http-port", "0", "--worker-port", "0", "--data-dir"]);
    cluster.adopt_master({
        command.arg(data);
        command
    });
    cluster.master().wait_for("Ready to receive tasks");
    assert_eq!(cluster.ok(&["run", BUSYBOX, "echo", "hello"]), "hello");
    let worker = cluster.worker_label("here");
    let task = cluster.submit(&["--grace", "1s", BUSYBOX, "sleep", "600"]);
    cluster.wait_status(&task, "running");
    until("its container", || engine::containers_with(&worker).pop());
    assert_eq!(cluster.stop_master(), 0);
    engine::wait_gone(&worker);
}

#[test]
fn ctrl_c_at_a_run_asks_and_obeys() {
    let (cluster, worker) = cluster_with(&["--cpus", "4"]);
    let run = ["run", "--grace", "1s", BUSYBOX, "sh", "-c", "echo begun; sleep 600"];
    let begin = || {
        let run = Process::start_at_terminal("run", &cluster.command(&run));
        run.wait_for("begun");
        run
    };
    let ctrl_c = 3;
    let mut leave = begin();
    leave.press(ctrl_c);
    leave.wait_for("Leave task-1 running, or cancel it?");
    leave.press(ctrl_c);
    leave.wait_for("task-1 goes on");
    assert_eq!(leave.wait_end(), 130);
    assert_eq!(cluster.task("task-1")["status"], "running");
    let mut cancel = begin();
    cancel.press(ctrl_c);
    cancel.wait_for("Leave task-2 running, or cancel it?");
    cancel.say("c");
    cancel.wait_for("Cancelling task-2...");
    assert_eq!(cancel.wait_end(), 130);
    assert_eq!(cluster.wait_end("task-2")["status"], "cancelled");
    cluster.ok(&["cancel", "1"]);
    cluster.wait_end("task-1");
    engine::wait_gone(&worker.label);
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let mut cluster = Cluster::start();
    let dir = cluster.data_dir();
    let doctor = |docker: Option<&str>| {
        let mut command = cluster.command(&["doctor"]);
        command.env("CLOUDAI_DATA", &dir).env("CLOUDAI_GRPC_PORT", "0");
        command.env("CLOUDAI_HTTP_PORT", "0").env("CLOUDAI_WORKER_PORT", "0");
        if let Some(docker) = docker {
            command.env("DOCKER_HOST", docker);
        }
        cloudai_e2e::run(&mut command)
    };
    doctor(None).check(0, &["ok       container engine", "ok       master", "data directory"]);
    let sick = doctor(Some("unix:///no/such.sock"));
    sick.check(1, &["problem  no container engine answers at /no/such.sock", "start docker"]);
    let address = cluster.http_address();
    assert_eq!(cluster.stop_master(), 0);
    cluster.cli(&["doctor"]).check(1, &["cannot reach the master", &address]);
}

#[test]
fn completions_and_manual_pages_are_written() {
    let cluster = Cluster::prepare(cloudai_e2e::Console::Service, &[]);
    for shell in ["bash", "zsh", "fish"] {
        cluster.cli(&["completions", shell]).check(0, &["cloudai", "submit"]);
    }
    let dir = cluster.dir().join("man");
    cluster.ok(&["man", dir.to_str().unwrap()]);
    let page = fs::read_to_string(dir.join("cloudai-submit.1")).unwrap();
    assert!(page.contains("request\\-id"), "{page}");
    cluster.cli(&["--help"]).check(0, &["Examples:", "Exit codes:"]);
    cluster.cli(&["--version"]).check(0, &["cloudai "]);
}

#[test]
fn the_prompt_knows_the_words_of_the_specification() {
    let mut cluster = Cluster::start_with(cloudai_e2e::Console::Script, &["--repl"]);
    let _worker = cluster.worker("worker-1", &["--executor", "mock", "--cpus", "4"]);
    cluster.ask(
        "task worker-1 image -cpu_cores 2 -mem 1 -storage 1 -- sleep 600",
        &["task-1 assigned"],
    );
    cluster.wait_status("task-1", "running");
    let mut ask = |line: &str, answers: &[&str]| cluster.ask(line, answers);
    ask("task image -cpu_cores=64", &["Task task-2 "]);
    ask("stats worker-1", &["worker-1  Active", "Running tasks: 1", "task-1"]);
    ask("queue", &["Waiting tasks: 1", "task-2"]);
    ask("dispatch", &["What is left waits:", "task-2"]);
    ask("list-tasks running", &["task-1  running"]);
    ask("list-tasks", &["task-1", "task-2"]);
    ask("task show 2", &["queued"]);
    ask("explain 2", &["worker-1: wants 64 cores, 4 in all"]);
    ask("cancel 1", &["task-1: 1 being stopped"]);
    ask("monitor 1", &["task-1 cancelled"]);
    ask("task worker-1 image -cpu_cores 0", &["must be more than 0"]);
    ask("task worker-1 image -gpu_cores 0 -- echo none", &["Task task-3 assigned"]);
    ask("monitor 3", &["task-3 succeeded"]);
    ask("status --json", &["\"succeeded\": 1"]);
}
