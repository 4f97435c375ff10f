//! What goes wrong at the edges: each gives a clear error in words, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::net::TcpListener;
use std::process::Command;

use cloudai_e2e::{BUSYBOX, Cluster, Console, Ran, empty_registry, engine, run, until};
use cloudai_proto::cluster::WorkerInfo;
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use serde_json::json;

/// A port that something else listens on.
fn taken_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Runs a role that must end by itself with an error.
#[track_caller]
fn check_refused(mut command: Command, texts: &[&str]) {
    let ran: Ran = run(&mut command);
    assert_ne!(ran.code, 0, "it started:\n{}", ran.out());
    ran.check(ran.code, &["error:"]);
    ran.check(ran.code, texts);
    assert!(!ran.err().contains("panicked"), "{}", ran.err());
}

#[test]
fn an_unknown_image_fails_its_task_only() {
    let cluster = Cluster::start();
    let _worker = cluster.worker("worker-1", &[]);
    let missing = format!("{}/no/such:image", empty_registry());
    cluster.cli(&["run", &missing]).check(125, &["its image could not be had", &missing]);
    cluster.cli(&["run", "--pull", "never", "no-such-image"]).check(125, &["no-such-image"]);
    cluster.cli(&["run", "Not An Image"]).check(125, &["image"]);
    cluster.cli(&["run", BUSYBOX, "echo", "goes on"]).check(0, &["goes on"]);
}

#[test]
fn an_unknown_worker_creates_nothing() {
    let cluster = Cluster::start();
    let request = json!({"image": BUSYBOX, "worker": "worker-99"});
    cluster.post(&request).check_error(404, "worker_not_found", "Worker 'worker-99' not found");
    assert_eq!(cluster.get("/tasks").body["tasks"], json!([]));
    cluster.cli(&["workers", "worker-99"]).check(125, &["Worker 'worker-99' not found"]);
    cluster.get("/tasks/9").check_error(404, "task_not_found", "task-9");
    cluster.cli(&["logs", "9"]).check(125, &["there is no task-9"]);
}

#[test]
fn needs_that_make_no_sense_are_refused_by_name() {
    let cluster = Cluster::start();
    for (flag, value) in [
        ("--cpus", "0"),
        ("--cpus", "-1"),
        ("--cpus", "NaN"),
        ("--cpus", "inf"),
        ("--memory", "0GiB"),
        ("--memory", "-1GiB"),
        ("--memory", "NaN"),
        ("--storage", "-1GiB"),
        ("--gpus", "-1"),
        ("--pids-limit", "0"),
        ("--timeout", "-1s"),
        ("--grace", "-1s"),
        ("--lease", "0s"),
        ("--retries", "-1"),
    ] {
        let ran = cluster.cli(&["submit", flag, value, BUSYBOX]);
        ran.check(2, &["error:", flag, value]);
    }
    let below = cluster.cli(&["submit", "--lease", "14s", BUSYBOX]);
    below.check(125, &["lease_ms: 14000 is out of bounds", "hint: --lease sets it"]);
    for (field, value) in [
        ("cpus", json!(0)),
        ("cpus", json!(-1)),
        ("cpus", json!(1e300)),
        ("cpus", json!("2")),
        ("memory_bytes", json!(0)),
        ("memory_bytes", json!(-1)),
        ("storage_bytes", json!(-1)),
        ("gpus", json!(-0.5)),
        ("pids", json!(0)),
        ("timeout_ms", json!(0)),
        ("sla_multiplier", json!(-1)),
    ] {
        let mut request = json!({"image": BUSYBOX});
        request[field] = value;
        let answer = cluster.post(&request);
        answer.check_error(400, "invalid_field", field);
        assert_eq!(answer.body["error"]["field"], field, "{}", answer.body);
    }
    let nan = format!(r#"{{"image":"{BUSYBOX}","cpus":NaN}}"#);
    cluster.post_job(nan.as_bytes()).check_error(400, "invalid_request", "");
    assert_eq!(cluster.get("/tasks").body["tasks"], json!([]));
}

#[tokio::test]
async fn a_worker_that_makes_no_sense_is_refused_by_name() {
    let cluster = Cluster::start();
    let address = format!("http://{}", cluster.grpc_address());
    let mut client = MasterWorkerClient::connect(address).await.unwrap();
    let good = WorkerInfo {
        worker_id: "unary-1".to_owned(),
        worker_ip: "127.0.0.1:1".to_owned(),
        total_cpu: 2.0,
        total_memory: 4.0,
        total_storage: 10.0,
        total_gpu: 0.0,
    };
    for (field, info) in [
        ("total_cpu", WorkerInfo { total_cpu: f64::NAN, ..good.clone() }),
        ("total_cpu", WorkerInfo { total_cpu: -1.0, ..good.clone() }),
        ("total_memory", WorkerInfo { total_memory: f64::INFINITY, ..good.clone() }),
        ("total_storage", WorkerInfo { total_storage: -0.5, ..good.clone() }),
        ("total_gpu", WorkerInfo { total_gpu: 1e300, ..good.clone() }),
        ("worker_id", WorkerInfo { worker_id: String::new(), ..good.clone() }),
        ("worker_id", WorkerInfo { worker_id: "../up".to_owned(), ..good.clone() }),
    ] {
        let status = client.register_worker(info).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{field}: {status}");
        assert!(status.message().contains(field), "{field}: {status}");
    }
    assert_eq!(cluster.get("/workers").body["workers"], json!([]));
    assert!(client.register_worker(good).await.unwrap().into_inner().success);
}

#[test]
fn a_task_larger_than_every_worker_waits_and_says_why() {
    let cluster = Cluster::start();
    let lonely = cluster.submit(&["--cpus", "1", BUSYBOX]);
    cluster.cli(&["explain", &lonely]).check(0, &["task-1 (queued): no workers registered yet"]);
    let _one = cluster.worker("worker-1", &["--cpus", "1", "--memory", "1GiB"]);
    let _two = cluster.worker("worker-2", &["--cpus", "8", "--memory", "1GiB"]);
    cluster.wait_success(&lonely);
    let large = cluster.submit(&["--cpus", "4", "-m", "2GiB", BUSYBOX]);
    cluster.cli(&["explain", &large]).check(
        0,
        &[
            "task-2 (queued): ",
            "worker-1: wants 4 cores, 1 in all",
            "worker-2: wants 2 GiB memory, 1 GiB in all",
        ],
    );
    cluster.cli(&["queue"]).check(0, &["Waiting tasks: 1", "task-2"]);
    // Others pass it by.
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
    let _three = cluster.worker("worker-3", &["--cpus", "4", "--memory", "2GiB"]);
    assert_eq!(cluster.wait_success(&large)["worker"], "worker-3");
}

#[test]
fn a_port_of_the_master_in_use_is_named() {
    let cluster = Cluster::prepare(Console::Service, &[]);
    let (_taken, port) = taken_port();
    let text = port.to_string();
    check_refused(cluster.master_command(port, 0), &[&text, "--grpc-port"]);
    check_refused(cluster.master_command(0, port), &[&text, "--http-port"]);
}

#[test]
fn the_port_of_a_worker_in_use_is_named() {
    let cluster = Cluster::start();
    let (_taken, port) = taken_port();
    let mut command = cluster.command(&["worker", "--id", "worker-1", "--data-dir"]);
    command.arg(cluster.data_dir()).args(["--master", &cluster.grpc_address()]);
    command.args(["--port", &port.to_string()]);
    check_refused(command, &[&format!("port {port} is in use"), "--port"]);
}

#[test]
fn a_data_directory_in_use_is_named() {
    let cluster = Cluster::start();
    let by = format!("process {}", cluster.master().id());
    let dir = cluster.data_dir();
    let second = cluster.master_command(0, 0);
    check_refused(second, &["is in use by another master", &by, &dir.to_string_lossy()]);
    let _worker = cluster.worker("worker-1", &[]);
    let twin = cluster.worker_command("worker-1", &[]);
    check_refused(twin, &["is in use by another worker"]);
    // The first ones did not notice.
    cluster.wait_success(&cluster.submit(&[BUSYBOX]));
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let mut cluster = Cluster::start();
    let task = cluster.submit(&[BUSYBOX]);
    assert_eq!(cluster.stop_master(), 0);
    let path = cluster.data_dir().join("cloudai.db");
    let version = |to: Option<u32>| {
        let store = rusqlite::Connection::open(&path).unwrap();
        let known: u32 = store.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        if let Some(to) = to {
            store.pragma_update(None, "user_version", to).unwrap();
        }
        known
    };
    let known = version(Some(9999));
    let words = ["was made by a newer CloudAI", "9999", "Start that version", "cloudai restore"];
    check_refused(cluster.master_command(0, 0), &words);
    assert_eq!(version(Some(known)), 9999);
    cluster.start_master();
    assert_eq!(cluster.task(&task)["status"], "queued");
}

#[test]
fn an_engine_that_cannot_be_reached_is_named() {
    let cluster = Cluster::start();
    let socket = cluster.dir().join("no-such.sock");
    let mut command = cluster.worker_command("worker-1", &["--once"]);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    let what_to_do = "start dockerd";
    check_refused(command, &[&socket.to_string_lossy(), "no such socket", what_to_do]);
    assert_eq!(cluster.get("/workers").body["workers"], json!([]));
}

#[test]
fn a_master_that_goes_away_is_waited_for() {
    let mut cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let script = "i=1; while [ $i -le 8 ]; do echo line $i; sleep 1; i=$((i+1)); done";
    let task = cluster.submit(&[BUSYBOX, "sh", "-c", script]);
    let container = cluster.wait_container(&task, &worker);
    let mark = worker.process.mark();
    cluster.kill_master();
    worker.process.wait_for_after(mark, "Next try in");
    // The container is not touched.
    assert_eq!(engine::inspect(&container)["State"]["Running"], true);
    cluster.start_master();
    worker.process.wait_for_after(mark, "Worker registered successfully");
    let detail = cluster.wait_success(&task);
    assert_eq!(detail["attempts"].as_array().map(Vec::len), Some(1), "{detail:#}");
    let want: Vec<String> = (1..=8).map(|i| format!("line {i}")).collect();
    assert_eq!(cluster.ok(&["logs", &task]), want.join("\n"));
    let ended = "Task completion: task-1 from worker worker-1";
    assert_eq!(cluster.master().said().matches(ended).count(), 1);
    until("its container is gone", || {
        engine::containers_with(&worker.label).is_empty().then_some(())
    });
}

#[test]
fn a_path_is_no_volume_and_a_bare_number_no_amount() {
    let cluster = Cluster::start();
    let path = cluster.cli(&["submit", "-v", "/etc:/mnt", BUSYBOX]);
    path.check(2, &["'/etc' is a path", "declares volumes by name"]);
    let volume = json!({"volume": "/etc", "target": "/mnt"});
    let request = json!({"image": BUSYBOX, "volumes": [volume]});
    cluster.post(&request).check_error(400, "invalid_field", "/etc");
    cluster.cli(&["submit", "-m", "512", BUSYBOX]).check(2, &["512 of what?", "2GiB"]);
    cluster.cli(&["submit", "--timeout", "5", BUSYBOX]).check(2, &["5 of what?", "90s"]);
    assert_eq!(cluster.get("/tasks").body["tasks"], json!([]));
}

#[test]
fn a_body_that_is_no_submit_is_refused() {
    let cluster = Cluster::start();
    for body in ["", "{", "[]", "null", "\u{0}", r#"{"imag":"x"}"#, r#"{"image":"x","more":1}"#] {
        cluster.post_job(body.as_bytes()).check_error(400, "invalid_request", "");
    }
    cluster.post(&json!({"image": 5})).check_error(400, "invalid_field", "image");
    cluster.post(&json!({"image": ""})).check_error(400, "invalid_field", "image");
    let large = json!({"image": BUSYBOX, "env": {"A": "x".repeat(2 << 20)}});
    cluster.post(&large).check_error(413, "too_large", "");
    cluster.get("/no/such/path").check_error(404, "not_found", "");
    assert_eq!(cluster.get("/tasks").body["tasks"], json!([]));
    assert_eq!(cluster.get("/health").body["ready"], true);
}

#[test]
fn a_client_without_a_master_says_so() {
    let mut cluster = Cluster::start();
    let address = cluster.http_address();
    assert_eq!(cluster.stop_master(), 0);
    cluster.cli(&["status"]).check(125, &["cannot reach the master", &address, "hint:"]);
    cluster.cli(&["--master-url", "https://x", "status"]).check(2, &["TLS"]);
}

#[test]
fn a_worker_that_is_gone_for_good_gives_its_tasks_to_others() {
    let cluster = Cluster::start();
    let mut worker = cluster.worker("worker-1", &[]);
    let script = "test $CLOUDAI_ATTEMPT != 1 || sleep 600";
    let task = cluster.submit(&["--lease", "15s", BUSYBOX, "sh", "-c", script]);
    cluster.wait_container(&task, &worker);
    let _other = cluster.worker("worker-2", &[]);
    worker.process.kill();
    let detail = cluster.wait_success(&task);
    assert_eq!(detail["worker"], "worker-2", "{detail:#}");
    assert_eq!(cluster.worker_view("worker-1")["status"], "inactive");
}
