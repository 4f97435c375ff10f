//! The whole API over the real heart, the real store and real files. Workers are played by the
//! commands that the gRPC side would give the heart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use cloudai_api::ErrorCode;
use cloudai_database::{SqliteStore, Store as _};
use cloudai_master_core::{Answer, Command, FullReport, Settings, WorkerHello};
use cloudai_model::{
    AttemptId, AttemptReport, Cause, Outcome, ReportWhat, Resources, Session, Timestamp, WorkerId,
    WorkerKind,
};
use cloudai_proto::log_record::{LogStream, encode};
use cloudai_scheduler::PolicyKind;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::serve::serve_bounded;
use super::wait::WATCHERS_MAX;
use super::{HttpState, MasterInfo};
use crate::files::TaskFiles;
use crate::heart::{self, HeartHandle, HeartSettings, StartError};
use crate::readers::Readers;
use crate::usage::UsageTable;

/// Far above what anything here takes; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    router: Router,
    heart: HeartHandle,
    thread: Option<JoinHandle<Result<(), StartError>>>,
    files: Arc<TaskFiles>,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let description = store.describe();
        let readers = Readers::open(&store).unwrap();
        let settings = HeartSettings {
            core: Settings::default(),
            policy: PolicyKind::FirstFit.build(),
            agent_deadline_ms: None,
        };
        let shutdown = CancellationToken::new();
        let started = heart::start(Box::new(store), settings, shutdown.clone());
        let (heart, thread) = started.unwrap();
        let files = Arc::new(TaskFiles::new(dir.path()));
        let info = MasterInfo {
            version: "1.2.3".to_owned(),
            store: description,
            policy: "first_fit",
            started_at: crate::clock::now().mono,
            agent: Arc::new(|| None),
            grpc_address: "127.0.0.1:50051".to_owned(),
            host_names: Some(Vec::new()),
        };
        let router = super::router(HttpState {
            heart: heart.clone(),
            readers,
            files: Arc::clone(&files),
            usage: Arc::new(UsageTable::default()),
            info,
            shutdown: shutdown.clone(),
        });
        Self { router, heart, thread: Some(thread), files, shutdown, _dir: dir }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        self.heart.stop().await;
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
    }

    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body =
            tokio::time::timeout(DEADLINE, axum::body::to_bytes(answer.into_body(), 1 << 24));
        let body = body.await.expect("the answer ends").unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get_text(&self, path: &str) -> (u16, String) {
        self.send(Request::get(format!("/api/v1{path}")).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.get_text(path).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    async fn post(&self, path: &str, body: impl Into<String>) -> (u16, Value) {
        let request = Request::post(format!("/api/v1{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.into()))
            .unwrap();
        let (status, text) = self.send(request).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    async fn submit(&self, body: Value) -> Value {
        let (status, answer) = self.post("/jobs", body.to_string()).await;
        assert_eq!(status, 201, "{answer}");
        answer
    }

    /// A worker of two cores comes.
    async fn worker(&self, id: &str) -> Session {
        let hello = WorkerHello {
            id: WorkerId::new(id).unwrap(),
            session: None,
            kind: WorkerKind::Session,
            address: "127.0.0.1:50052".to_owned(),
            capacity: Resources {
                cpu_milli: 2000,
                memory_bytes: 4 << 30,
                storage_bytes: 40 << 30,
                gpu_milli: 0,
            },
            volumes: BTreeSet::new(),
            version: String::new(),
            held: Some(Vec::new()),
            degraded: None,
            stream: None,
        };
        match self.heart.command(Command::Hello(hello)).await.unwrap() {
            Answer::Welcome(session) => session,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&self, worker: &str, session: Session, attempt: &str, what: ReportWhat) {
        let attempt: AttemptId = attempt.parse().unwrap();
        let report = Command::Report {
            worker: WorkerId::new(worker).unwrap(),
            session: Some(session),
            sequence: 1,
            changes: vec![AttemptReport { attempt, what }],
            full: None,
        };
        assert_eq!(self.heart.command(report).await.unwrap(), Answer::Reported);
    }

    /// Waits until a task stands there.
    async fn wait_status(&self, task: &str, status: &str) {
        let path = format!("/tasks/{task}");
        let reached = async {
            while self.get(&path).await.1["status"] != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.unwrap();
    }

    fn log(&self, attempt: &str, stream: LogStream, bytes: &[u8]) {
        let attempt: AttemptId = attempt.parse().unwrap();
        let mut record = Vec::new();
        encode(stream, Timestamp(7), bytes, &mut record);
        let stored = self.files.log_len(attempt).unwrap();
        self.files.append_log(attempt, stored, &record).unwrap();
    }
}

fn ended(code: i32) -> ReportWhat {
    let outcome = Outcome::new(Cause::Exit(code), "");
    ReportWhat::Ended { started_at: None, outcome, at: Timestamp(9) }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_from_its_submit_to_its_end() {
    let world = World::start();
    let submit = world.submit(json!({ "image": "busybox", "cpus": 1.5, "name": "first" })).await;
    assert_eq!(
        submit,
        json!({ "job": "1", "tasks": 1, "first_task": "task-1", "existing": false })
    );
    let (status, explained) = world.get("/tasks/1/explain").await;
    assert_eq!((status, &explained["summary"]), (200, &json!("no workers registered yet")));
    let session = world.worker("worker-1").await;
    world.report("worker-1", session, "task-1-a1", ReportWhat::Started(Timestamp(8))).await;
    let (_, task) = world.get("/tasks/task-1").await;
    assert_eq!((&task["status"], &task["worker"]), (&json!("running"), &json!("worker-1")));
    assert_eq!(task["spec"]["needs"]["cpus"], json!(1.5));
    let (_, worker) = world.get("/workers/worker-1").await;
    assert_eq!(worker["tasks"][0]["task"], "task-1");
    assert_eq!(worker["free"]["cpus"], json!(0.5));
    world.report("worker-1", session, "task-1-a1", ended(3)).await;
    let (_, task) = world.get("/tasks/1").await;
    assert_eq!(task["outcome"], json!({ "cause": "exit", "exit_code": 3 }));
    assert_eq!(task["attempts"][0]["state"], "ended");
    let (_, explained) = world.get("/tasks/1/explain").await;
    assert_eq!(explained["summary"], "failed on worker-1 with exit code 3");
    let (_, status) = world.get("/status").await;
    assert_eq!((&status["tasks"]["failed"], &status["workers"]["active"]), (&json!(1), &json!(1)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_has_used_of_its_budgets_is_shown() {
    let world = World::start();
    world.submit(json!({ "image": "busybox", "crashes_max": 1 })).await;
    let session = world.worker("worker-1").await;
    let infra = || {
        let outcome = Outcome::new(Cause::Infra, "no space left");
        ReportWhat::Ended { started_at: None, outcome, at: Timestamp(9) }
    };
    world.report("worker-1", session, "task-1-a1", infra()).await;
    world.wait_status("task-1", "assigned").await;
    world.report("worker-1", session, "task-1-a2", ReportWhat::Started(Timestamp(8))).await;
    // Its process dies with it and comes back.
    world.worker("worker-1").await;
    world.wait_status("task-1", "assigned").await;
    let (_, task) = world.get("/tasks/1").await;
    let counted = (&task["crashes"], &task["infra_losses"], &task["spec"]["crashes_max"]);
    assert_eq!(counted, (&json!(1), &json!(1), &json!(1)));
    let (_, explained) = world.get("/tasks/1/explain").await;
    let summary = explained["summary"].as_str().unwrap();
    let want = "; its worker was lost once while it ran (crashes_max is 1); it was lost once to an \
                engine, a disk, or before it started";
    assert!(summary.ends_with(want), "{summary}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_gets_no_new_work_says_why() {
    let world = World::start();
    let session = world.worker("worker-1").await;
    let degraded = Command::Report {
        worker: WorkerId::new("worker-1").unwrap(),
        session: Some(session),
        sequence: 1,
        changes: Vec::new(),
        full: Some(FullReport { held: Vec::new(), degraded: Some("the disk is full".to_owned()) }),
    };
    assert_eq!(world.heart.command(degraded).await.unwrap(), Answer::Reported);
    let (_, view) = world.get("/workers/worker-1").await;
    let shown = (&view["status"], &view["reason"]);
    assert_eq!(shown, (&json!("degraded"), &json!("the disk is full")));
    let (_, status) = world.get("/status").await;
    let workers = json!({ "total": 1, "active": 0, "inactive": 0, "degraded": 1, "put_aside": 0 });
    assert_eq!(status["workers"], workers);
    // A new process that fails five jobs at once, beside a good one.
    world.worker("worker-2").await;
    let session = world.worker("worker-1").await;
    for job in 1..=5 {
        world.submit(json!({ "image": "busybox" })).await;
        let (started_at, outcome) = (Some(Timestamp(8)), Outcome::new(Cause::Exit(1), ""));
        let what = ReportWhat::Ended { started_at, outcome, at: Timestamp(9) };
        world.report("worker-1", session, &format!("task-{job}-a1"), what).await;
    }
    let (_, view) = world.get("/workers/worker-1").await;
    assert_eq!(view["status"], "put_aside");
    let reason = view["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("put aside for ") && reason.contains(" tried with one task, after 5"),
        "{reason}"
    );
    let (_, status) = world.get("/status").await;
    assert_eq!(status["workers"]["put_aside"], 1);
    world.submit(json!({ "image": "busybox", "worker": "worker-1" })).await;
    let (_, explained) = world.get("/tasks/6/explain").await;
    assert_eq!(explained["summary"], "the workers that could take it get no new work now");
    let reason = explained["workers"][0]["reason"].as_str().unwrap();
    assert!(reason.ends_with("last: task-5-a1 ended with exit(1)"), "{reason}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_code_and_its_field() {
    let world = World::start();
    for (body, code, field) in [
        ("", "invalid_request", None),
        ("{", "invalid_request", None),
        ("[]", "invalid_request", None),
        ("{}", "invalid_request", None),
        (r#"{"image":"x"} trailing"#, "invalid_request", None),
        (r#"{"image":"x","cpu":1}"#, "invalid_request", None),
        (r#"{"image":"x","cpus":NaN}"#, "invalid_request", None),
        (r#"{"image":"x","cpus":1e999}"#, "invalid_request", None),
        (r#"{"image":1}"#, "invalid_field", Some("image")),
        (r#"{"image":""}"#, "invalid_field", Some("image")),
        (r#"{"image":"x","cpus":"1"}"#, "invalid_field", Some("cpus")),
        (r#"{"image":"x","cpus":0}"#, "invalid_field", Some("cpus")),
        (r#"{"image":"x","cpus":-1}"#, "invalid_field", Some("cpus")),
        (r#"{"image":"x","cpus":1e300}"#, "invalid_field", Some("cpus")),
        (r#"{"image":"x","memory_bytes":-5}"#, "invalid_field", Some("memory_bytes")),
        (r#"{"image":"x","memory_bytes":0}"#, "invalid_field", Some("memory_bytes")),
        (r#"{"image":"x","memory_bytes":1.5}"#, "invalid_field", Some("memory_bytes")),
        (
            r#"{"image":"x","storage_bytes":18446744073709551615}"#,
            "invalid_field",
            Some("storage_bytes"),
        ),
        (r#"{"image":"x","network":"host"}"#, "invalid_field", Some("network")),
        (r#"{"image":"x","pull":"often"}"#, "invalid_field", Some("pull")),
        (r#"{"image":"x","array":{"first":5,"last":1}}"#, "invalid_field", Some("array")),
        (r#"{"image":"x","array":{"first":-1,"last":1}}"#, "invalid_field", Some("array.first")),
        (r#"{"image":"x","worker":"worker-99"}"#, "worker_not_found", None),
    ] {
        let (status, answer) = world.post("/jobs", body).await;
        let error = &answer["error"];
        assert_eq!(error["code"], code, "{body}: {answer}");
        assert_eq!(error["field"].as_str(), field, "{body}: {answer}");
        assert_eq!(status, if code == "worker_not_found" { 404 } else { 400 });
        assert!(error["message"].as_str().is_some_and(|words| words.len() > 5), "{answer}");
    }
    let (_, jobs) = world.get("/jobs").await;
    assert_eq!(jobs["jobs"], json!([]), "nothing was created");
    let large = format!(r#"{{"image":"{}"}}"#, "x".repeat(cloudai_api::REQUEST_BYTES_MAX));
    let (status, answer) = world.post("/jobs", large).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("too_large")));
    for (path, status, code) in [
        ("/tasks?limit=0", 400, "invalid_field"),
        ("/tasks?limit=1001", 400, "invalid_field"),
        ("/tasks?limit=x", 400, "invalid_field"),
        ("/tasks?status=lost", 400, "invalid_field"),
        ("/tasks?colour=red", 400, "invalid_request"),
        ("/tasks?cursor=x", 400, "invalid_field"),
        ("/jobs?cursor=x", 400, "invalid_field"),
        ("/tasks/x", 400, "invalid_field"),
        ("/tasks/7", 404, "task_not_found"),
        ("/tasks/7/logs", 404, "task_not_found"),
        ("/tasks/7/explain", 404, "task_not_found"),
        ("/tasks/%ff", 400, "invalid_request"),
        ("/jobs/7", 404, "job_not_found"),
        ("/workers/worker-99", 404, "worker_not_found"),
        ("/nothing", 404, "not_found"),
        ("/jobs/7/cancel", 405, "method_not_allowed"),
    ] {
        let (got, answer) = world.get(path).await;
        assert_eq!(
            (got, answer["error"]["code"].as_str()),
            (status, Some(code)),
            "{path}: {answer}"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_gives_the_same_job() {
    let world = World::start();
    let body = json!({ "image": "busybox", "request_id": "r-1" });
    let first = world.submit(body.clone()).await;
    let (status, again) = world.post("/jobs", body.to_string()).await;
    assert_eq!((status, &again["job"], &again["existing"]), (200, &first["job"], &json!(true)));
    world.post("/jobs/1/cancel", "").await;
    let (status, again) = world.post("/jobs", body.to_string()).await;
    assert_eq!((status, &again["job"]), (200, &first["job"]), "after its end as well");
    let other = json!({ "image": "alpine", "request_id": "r-1" });
    let (status, answer) = world.post("/jobs", other.to_string()).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("conflict")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_task_once() {
    let world = World::start();
    for count in [3, 1, 6] {
        world.submit(json!({ "image": "busybox", "array": { "first": 1, "last": count } })).await;
    }
    let mut seen = Vec::new();
    let mut path = "/tasks?limit=4".to_owned();
    loop {
        let (status, page) = world.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let tasks = page["tasks"].as_array().unwrap();
        assert!(tasks.len() <= 4);
        seen.extend(tasks.iter().map(|task| task["task"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/tasks?limit=4&cursor={cursor}"),
            None => break,
        }
    }
    let mut want: Vec<String> = Vec::new();
    for (job, count) in [(3, 6), (2, 1), (1, 3)] {
        want.extend((1..=count).rev().map(|index| format!("task-{job}.{index}")));
    }
    assert_eq!(seen, want);
    let (_, jobs) = world.get("/jobs?limit=2").await;
    assert_eq!(jobs["jobs"][0]["job"], "3");
    let cursor = jobs["next_cursor"].as_str().unwrap();
    let (_, jobs) = world.get(&format!("/jobs?limit=2&cursor={cursor}")).await;
    assert_eq!((&jobs["jobs"][0]["job"], &jobs["next_cursor"]), (&json!("1"), &Value::Null));
    let (status, answer) = world.get("/tasks/1").await;
    let words = answer["error"]["message"].as_str().unwrap();
    assert!(status == 404 && words.contains("is an array"), "{words}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_what_waits_and_tells_what_had_ended() {
    let world = World::start();
    world.submit(json!({ "image": "busybox", "array": { "first": 0, "last": 9 } })).await;
    let (status, one) = world.post("/tasks/1.4/cancel", "").await;
    assert_eq!(status, 200, "{one}");
    let want = |id: &str, cancelled: u64, ended: u64| {
        json!({
            "id": id, "cancelled": cancelled, "stopping": 0, "already_ended": ended,
        })
    };
    assert_eq!(one, want("task-1.4", 1, 0));
    assert_eq!(world.post("/tasks/1.4/cancel", "").await.1, want("task-1.4", 0, 1));
    assert_eq!(world.post("/jobs/job-1/cancel", "").await.1, want("job-1", 9, 1));
    assert_eq!(world.post("/jobs/1/cancel", "").await.1, want("job-1", 0, 10));
    let (_, job) = world.get("/jobs/1").await;
    assert_eq!((&job["ended"], &job["counts"]["cancelled"]), (&json!(true), &json!(10)));
    let (_, gone) = world.get("/tasks?status=cancelled").await;
    assert_eq!(gone["tasks"].as_array().unwrap().len(), 10);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_answered_by_the_end_and_by_the_time() {
    let world = World::start();
    world.submit(json!({ "image": "busybox" })).await;
    let (status, task) = world.get("/tasks/1?wait_ms=20").await;
    assert_eq!((status, &task["status"]), (200, &json!("queued")));
    let (task, job, ()) = tokio::join!(
        world.get("/tasks/1?wait_ms=60000"),
        world.get("/jobs/1?wait_ms=60000"),
        async {
            let session = world.worker("worker-1").await;
            world.report("worker-1", session, "task-1-a1", ReportWhat::Started(Timestamp(8))).await;
            world.report("worker-1", session, "task-1-a1", ended(0)).await;
        }
    );
    assert_eq!((&task.1["status"], &job.1["ended"]), (&json!("succeeded"), &json!(true)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_is_whole_and_ends_with_the_task() {
    let world = World::start();
    world.submit(json!({ "image": "busybox" })).await;
    let (_, text) = world.get_text("/tasks/1/logs").await;
    assert_eq!(lines(&text), [json!({ "end": true, "status": "queued" })]);
    let follow =
        tokio::spawn(world.router.clone().oneshot(
            Request::get("/api/v1/tasks/1/logs?follow=true").body(Body::empty()).unwrap(),
        ));
    let mut pieces = follow.await.unwrap().unwrap().into_body().into_data_stream();
    let session = world.worker("worker-1").await;
    world.log("task-1-a1", LogStream::Stdout, b"one\n");
    world.report("worker-1", session, "task-1-a1", ReportWhat::Started(Timestamp(8))).await;
    let piece = tokio::time::timeout(DEADLINE, pieces.next()).await.unwrap().unwrap().unwrap();
    let first = lines(std::str::from_utf8(&piece).unwrap());
    let line = json!({ "stream": "stdout", "attempt": 1, "at_ms": 7, "text": "one\n" });
    assert_eq!(first, [line]);
    world.log("task-1-a1", LogStream::Stderr, b"\xff");
    world.log("task-1-a1", LogStream::Gap, b"5 bytes are missing");
    world.report("worker-1", session, "task-1-a1", ended(0)).await;
    let mut rest = Vec::new();
    while let Some(piece) = tokio::time::timeout(DEADLINE, pieces.next()).await.unwrap() {
        rest.extend_from_slice(&piece.unwrap());
    }
    let rest = lines(std::str::from_utf8(&rest).unwrap());
    assert_eq!(rest[0]["base64"], "/w==");
    assert_eq!((&rest[1]["stream"], &rest[2]["status"]), (&json!("note"), &json!("succeeded")));
    assert_eq!(rest.len(), 3);
    let (_, text) = world.get_text("/tasks/1/logs?stream=stdout&attempt=1").await;
    assert_eq!(lines(&text).len(), 3, "one line, the note, the end: {text}");
    let (status, answer) = world.get("/tasks/1/logs?attempt=2").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("attempt_not_found")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_goes_over_to_the_next_attempt() {
    let world = World::start();
    world.submit(json!({ "image": "busybox", "retries": 1 })).await;
    let session = world.worker("worker-1").await;
    world.log("task-1-a1", LogStream::Stdout, b"first");
    let follow = tokio::spawn({
        let request = Request::get("/api/v1/tasks/1/logs?follow=true").body(Body::empty()).unwrap();
        let answer = world.router.clone().oneshot(request);
        async move { axum::body::to_bytes(answer.await.unwrap().into_body(), 1 << 20).await }
    });
    world.report("worker-1", session, "task-1-a1", ended(1)).await;
    // The second attempt comes when the pause after a failure is over.
    loop {
        let (_, task) = world.get("/tasks/1").await;
        if task["attempt"] == 2 {
            break;
        }
        world.get("/tasks/1?wait_ms=200").await;
    }
    world.log("task-1-a2", LogStream::Stdout, b"second");
    world.report("worker-1", session, "task-1-a2", ended(0)).await;
    let text = tokio::time::timeout(DEADLINE, follow).await.unwrap().unwrap().unwrap();
    let got = lines(std::str::from_utf8(&text).unwrap());
    let texts: Vec<_> = got.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts, ["first", "second"]);
    let (_, task) = world.get("/tasks/1").await;
    assert_eq!(task["attempts"][0]["outcome"], json!({ "cause": "exit", "exit_code": 1 }));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_attempt_left_is_there_after_a_cancel_between_two_tries() {
    let world = World::start();
    world.submit(json!({ "image": "busybox", "retries": 1 })).await;
    let session = world.worker("worker-1").await;
    world.log("task-1-a1", LogStream::Stdout, b"first");
    world.files.append_note("task-1-a1".parse().unwrap(), Timestamp(6), "image pulled").unwrap();
    world.report("worker-1", session, "task-1-a1", ended(1)).await;
    let (status, answer) = world.post("/tasks/1/cancel", "").await;
    assert_eq!((status, &answer["cancelled"]), (200, &json!(1)), "{answer}");
    for path in ["/tasks/1/logs", "/tasks/1/logs?attempt=1&follow=true"] {
        let (_, text) = world.get_text(path).await;
        let got = lines(&text);
        assert_eq!((&got[0]["text"], &got[1]["status"]), (&json!("first"), &json!("cancelled")));
    }
    let (_, task) = world.get("/tasks/1").await;
    assert_eq!(task["notes"], json!([{ "at_ms": 6, "text": "image pulled" }]));
    assert_eq!(
        (&task["attempts"][0]["state"], &task["attempts"][1]),
        (&json!("lost"), &Value::Null)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_files_are_listed_and_given_and_nothing_else_is() {
    let world = World::start();
    world.submit(json!({ "image": "busybox" })).await;
    world.worker("worker-1").await;
    let dir = world.files.output_dir("task-1-a1".parse().unwrap());
    std::fs::create_dir_all(dir.join("a b")).unwrap();
    std::fs::write(dir.join("a b/result.json"), "{}").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("passwd")).unwrap();
    let (_, list) = world.get("/tasks/1/files").await;
    assert_eq!(list["files"], json!([{ "path": "a b/result.json", "size_bytes": 2 }]));
    let (status, bytes) = world.get_text("/tasks/1/files/a%20b/result.json").await;
    assert_eq!((status, bytes.as_str()), (200, "{}"));
    for path in ["passwd", "..%2f..%2fcloudai.db", "%2fetc%2fpasswd", "a%20b", "none"] {
        let (status, answer) = world.get(&format!("/tasks/1/files/{path}")).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("file_not_found")), "{path}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happens() {
    let world = World::start();
    let request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
    let answer = world.router.clone().oneshot(request).await.unwrap();
    let mut pieces = answer.into_body().into_data_stream();
    world.submit(json!({ "image": "busybox" })).await;
    let session = world.worker("worker-1").await;
    world.report("worker-1", session, "task-1-a1", ended(0)).await;
    let mut text = String::new();
    while !text.contains("task-1 succeeded on worker-1") || !text.contains("worker_registered") {
        let piece = tokio::time::timeout(DEADLINE, pieces.next()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    world.shutdown.cancel();
    let end = tokio::time::timeout(DEADLINE, pieces.next()).await.unwrap();
    assert!(end.is_none(), "the stream ends with the master");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_last_are_bounded() {
    let world = World::start();
    let mut open = Vec::new();
    for _ in 0..WATCHERS_MAX {
        let request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
        open.push(world.router.clone().oneshot(request).await.unwrap());
    }
    let (status, answer) = world.get("/events").await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("busy")));
    assert_eq!(world.get("/status").await.0, 200, "short requests go on");
    open.pop();
    let request = Request::get("/api/v1/events").body(Body::empty()).unwrap();
    assert_eq!(world.router.clone().oneshot(request).await.unwrap().status(), 200);
    world.stop().await;
}

/// Asks over a connection of its own.
async fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    // A connection that was turned away may be reset behind its answer.
    drop(read.expect("the connection ends"));
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    const MAX: usize = 16;
    let world = World::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = world.router.clone();
    let served = tokio::spawn(serve_bounded(listener, router, world.shutdown.clone(), MAX));
    let mut idle = Vec::new();
    for _ in 0..MAX * 4 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let text = read_to_end(ask(address, "/healthz").await).await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("ok\n"), "{text}");
    assert_eq!(read_to_end(idle.remove(0)).await, "", "the idlest made room");
    // Now every place is at work.
    let mut at_work = Vec::new();
    for _ in 0..MAX {
        let mut stream = ask(address, "/api/v1/events").await;
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        at_work.push(stream);
    }
    let text = read_to_end(TcpStream::connect(address).await.unwrap()).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Retry-After: 1"), "{text}");
    world.shutdown.cancel();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_the_command_line_understands_every_answer() {
    let world = World::start();
    world.submit(json!({ "image": "busybox", "array": { "first": 1, "last": 5 } })).await;
    let session = world.worker("worker-1").await;
    world.log("task-1.1-a1", LogStream::Stdout, b"hello\n");
    world.report("worker-1", session, "task-1.1-a1", ended(0)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(super::serve(listener, world.router.clone(), world.shutdown.clone()));
    let asked = tokio::task::spawn_blocking(move || {
        use cloudai_cli::{Client, HttpBackend};
        let client = Client::new(Arc::new(HttpBackend::new(&url).unwrap()));
        let (task, job) = ("1.1".parse().unwrap(), "1".parse().unwrap());
        assert!(client.health().unwrap().ready);
        assert_eq!(client.status().unwrap().tasks.succeeded, 1);
        assert_eq!(client.job(job, Some(1)).unwrap().counts.total(), 5);
        assert_eq!(client.tasks(&cloudai_api::TaskQuery::default()).unwrap().tasks.len(), 5);
        assert_eq!(client.task(&task, Some(5)).unwrap().attempts.len(), 1);
        assert!(client.explain(&task).unwrap().summary.contains("succeeded"));
        assert_eq!(client.files(&task).unwrap().files, []);
        assert_eq!(client.workers().unwrap().workers.len(), 1);
        assert_eq!(client.worker("worker-1").unwrap().running, 2);
        assert!(client.worker("worker-99").unwrap_err().code == Some(ErrorCode::WorkerNotFound));
        assert_eq!(client.queue().unwrap().waiting, 2);
        assert_eq!(client.cancel_task(&task).unwrap().already_ended, 1);
        let cancelled = client.cancel_job(job).unwrap();
        assert_eq!((cancelled.cancelled, cancelled.stopping), (2, 2));
    });
    asked.await.unwrap();
    world.shutdown.cancel();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_of_the_same_process_gets_the_same_answers() {
    let world = World::start();
    let backend = super::backend(world.router.clone(), tokio::runtime::Handle::current());
    let asked = tokio::task::spawn_blocking(move || {
        use cloudai_cli::{Backend as _, Request};
        use std::io::Read as _;
        let body = br#"{"image":"busybox"}"#.to_vec();
        let made = backend.call(&Request::post("/api/v1/jobs", Some(body))).unwrap();
        let refused = backend.call(&Request::get("/api/v1/tasks/9")).unwrap();
        let mut log = backend.stream(&Request::get("/api/v1/tasks/1/logs")).unwrap();
        let mut text = String::new();
        log.body.read_to_string(&mut text).unwrap();
        (made.status, refused.status, log.status, text)
    });
    let (made, refused, log, text) = asked.await.unwrap();
    assert_eq!((made, refused, log), (201, 404, 200));
    assert_eq!(lines(&text), [json!({ "end": true, "status": "queued" })]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_the_description_are_there() {
    let world = World::start();
    for (path, want) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(world.send(request).await, (200, want.to_owned()));
    }
    let (_, description) = world.get("/openapi.json").await;
    assert!(description["paths"]["/api/v1/tasks/{id}/files/{path}"]["get"].is_object());
    let (status, health) = world.get("/health").await;
    assert_eq!((status, health), (200, json!({ "ready": true, "version": "1.2.3" })));
    world.heart.stop().await;
    // Without the heart there is no master, whoever still answers.
    tokio::time::timeout(DEADLINE, world.shutdown.cancelled()).await.unwrap();
    let request = Request::get("/healthz").body(Body::empty()).unwrap();
    assert_eq!(world.send(request).await, (503, "ending\n".to_owned()));
    world.stop().await;
}
