//! The worker as a master sees it, over a real connection: each test is a promise.

mod peer;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloudai_model::StopReason;
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use cloudai_proto::cluster::{Task, TaskId, TaskLogRequest, session_up};
use cloudai_proto::convert::Orders;
use cloudai_worker::WorkerError;
use peer::{LostEnd, Peer, Worker, cores, held, id, log_text, soon, spec};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_worker_says_who_it_is_and_what_it_has() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    let hello = &session.hello;
    assert_eq!((hello.worker.id.as_str(), hello.session), ("worker-1", None));
    assert_eq!(cores(hello.worker.capacity), 4000);
    assert!(hello.worker.capacity.memory_bytes > 0 && hello.worker.capacity.storage_bytes > 0);
    assert!(hello.held.is_empty());
    for sequence in 1..=3 {
        let report = session.report().await;
        assert_eq!((report.sequence, report.full.map(|full| full.held)), (sequence, Some(vec![])));
    }
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn an_attempt_is_run_reported_and_forgotten() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "echo hello; write result.json {}; exit 3").await;
    session.wait_for("task-1-a1", "exit(3)").await;
    // The end is told only when the log and the files are with the master.
    assert_eq!(log_text(&peer.brought, "task-1-a1"), "hello\n");
    let files = peer.brought.files.lock().unwrap().clone();
    assert_eq!(files.get("task-1-a1/result.json").map(Vec::as_slice), Some(&b"{}"[..]));
    assert_eq!(session.held().await, ["task-1-a1 exit(3)"]);
    session.forget("task-1-a1").await;
    while !session.held().await.is_empty() {}
    // The same assign once more comes too late to run again, and the master is told so.
    session.assign("task-1-a1", "echo again").await;
    session.wait_for("task-1-a1", "infra").await;
    assert!(session.held().await.is_empty());
    while worker.left_on_disk() > 0 {
        session.report().await;
    }
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn many_instant_tasks_need_few_messages_and_no_files() {
    const COUNT: u64 = 5_000;
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    let shared = Arc::new(spec(""));
    let ids = (1..=COUNT).map(|job| id(&format!("task-{job}-a1"))).collect::<Vec<_>>();
    let assign = ids.iter().map(|attempt| (*attempt, Arc::clone(&shared))).collect();
    session.order(Orders { assign, ..Orders::default() }).await;
    let (mut ended, mut messages) = (0, 0);
    while ended < COUNT as usize {
        ended += session.report().await.changes.len();
        messages += 1;
    }
    assert!(messages < 50, "{messages}");
    assert_eq!(worker.left_on_disk(), 0);
    session.order(Orders { forget: ids, ..Orders::default() }).await;
    while !session.held().await.is_empty() {}
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_broken_session_is_taken_up_again_with_everything_that_is_held() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "sleep 1000").await;
    session.wait_for("task-1-a1", "started").await;
    drop(session);
    let again = peer.welcome(7).await;
    assert_eq!(again.hello.session.map(|session| session.0), Some(7));
    assert_eq!(held(&again.hello.held), ["task-1-a1 started"]);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_master_forgot_is_asked_for_anew() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let session = peer.welcome(7).await;
    session.refuse("unknown").await;
    let again = peer.welcome(8).await;
    assert_eq!(again.hello.session, None);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_superseded_worker_ends_and_says_why() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let session = peer.welcome(7).await;
    session.refuse("superseded").await;
    let error = worker.ended().await.unwrap_err();
    assert!(matches!(error, WorkerError::Superseded { .. }), "{error}");
    assert!(error.to_string().contains("another process has taken the id worker-1"), "{error}");
}

#[tokio::test]
async fn a_cancelled_attempt_stops_and_a_stale_one_is_not_reported() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "sleep 1000").await;
    session.assign("task-2-a1", "sleep 1000").await;
    session.wait_for("task-2-a1", "started").await;
    let stop = vec![(id("task-1-a1"), StopReason::Cancelled), (id("task-2-a1"), StopReason::Stale)];
    session.order(Orders { stop, ..Orders::default() }).await;
    while session.held().await != ["task-1-a1 cancelled"] {}
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_stops_everything_says_goodbye_and_leaves_nothing() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "echo x; sleep 1000").await;
    session.wait_for("task-1-a1", "started").await;
    worker.ask_to_stop();
    loop {
        match session.message().await.unwrap() {
            session_up::Message::Goodbye(_) => break,
            session_up::Message::Report(_) => {}
            session_up::Message::Hello(_) => panic!("a second hello"),
        }
    }
    drop(session);
    let left = worker.data_dir.clone();
    worker.ended().await.unwrap();
    assert!(!left.join("spool/task-1-a1.log").exists());
}

#[tokio::test]
async fn a_shutdown_takes_nothing_new_and_waits_until_the_master_has_what_ended() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "echo x").await;
    session.wait_for("task-1-a1", "exit(0)").await;
    worker.ask_to_stop();
    let full = loop {
        match session.report().await.full {
            Some(full) if full.degraded.is_some() => break full,
            _ => {}
        }
    };
    assert_eq!(full.degraded.as_deref(), Some("it shuts down"));
    assert_eq!(held(&full.held), ["task-1-a1 exit(0)"]);
    session.forget("task-1-a1").await;
    while !matches!(session.message().await.unwrap(), session_up::Message::Goodbye(_)) {}
    drop(session);
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn a_goodbye_comes_behind_the_logs_of_what_it_stopped() {
    let mut peer = Peer::start().await;
    peer.brought.lost_ends.lock().unwrap().extend([LostEnd::Broken, LostEnd::Broken]);
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "echo one; sleep 1000").await;
    while log_text(&peer.brought, "task-1-a1").is_empty() {
        session.report().await;
    }
    worker.ask_to_stop();
    while !matches!(session.message().await.unwrap(), session_up::Message::Goodbye(_)) {}
    assert_eq!(log_text(&peer.brought, "task-1-a1"), "one\n");
    drop(session);
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn a_log_that_breaks_off_goes_on_where_the_master_stands() {
    let mut peer = Peer::start().await;
    peer.brought.broken_parts.store(3, Ordering::SeqCst);
    let worker = Worker::start(&peer.address);
    let mut session = peer.welcome(7).await;
    session.assign("task-1-a1", "echo one; sleep 0.05; echo two; sleep 0.05; echo three").await;
    session.wait_for("task-1-a1", "exit(0)").await;
    assert_eq!(log_text(&peer.brought, "task-1-a1"), "one\ntwo\nthree\n");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_is_pushed_again_until_the_master_says_that_it_is_safe() {
    for end in [LostEnd::Broken, LostEnd::Silent, LostEnd::Told] {
        let mut peer = Peer::start().await;
        peer.brought.lost_ends.lock().unwrap().extend([end, end]);
        let worker = Worker::start(&peer.address);
        let mut session = peer.welcome(7).await;
        session.assign("task-1-a1", "echo one; echo two").await;
        session.wait_for("task-1-a1", "exit(0)").await;
        assert_eq!(log_text(&peer.brought, "task-1-a1"), "one\ntwo\n", "{end:?}");
        session.forget("task-1-a1").await;
        drop(session);
        worker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn without_a_master_a_worker_that_tries_once_ends_with_an_error() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let worker = Worker::start_with(&free.to_string(), |config| config.once = true);
    let error = worker.ended().await.unwrap_err().to_string();
    assert!(error.starts_with("Failed to register with master at 127.0.0.1:"), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_worker_waits_for_a_master_that_comes_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let worker = Worker::start(&address.to_string());
    let mut peer = Peer::start_at(address).await;
    peer.welcome(1).await.report().await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_said_in_words() {
    let peer = Peer::start().await;
    let taken = peer.address.parse().unwrap();
    let worker = Worker::start_with(&peer.address, |config| config.listen = taken);
    let error = worker.ended().await.unwrap_err().to_string();
    assert!(error.contains(&format!("port {} is in use", taken.port())), "{error}");
}

#[tokio::test]
async fn a_master_without_sessions_assigns_reads_and_gets_the_result() {
    let mut peer = Peer::start().await;
    let worker = Worker::start(&peer.address);
    let session = peer.welcome(7).await;
    let address = format!("http://{}", session.hello.worker.address);
    let mut client = MasterWorkerClient::connect(address).await.unwrap();
    let task = Task {
        task_id: "my task".into(),
        docker_image: "mock".into(),
        command: "echo hello; write a.txt x; sleep 1000".into(),
        ..Task::default()
    };
    for message in ["Task accepted", "Task already accepted"] {
        let ack = client.assign_task(task.clone()).await.unwrap().into_inner();
        assert_eq!((ack.success, ack.message.as_str()), (true, message));
    }
    let bad = Task { task_id: "x".into(), req_cpu: f64::NAN, ..task.clone() };
    let ack = client.assign_task(bad).await.unwrap().into_inner();
    assert_eq!((ack.success, ack.message.as_str()), (false, "req_cpu: NaN is not a number"));

    let request = TaskLogRequest { task_id: "my task".into(), follow: true, ..Default::default() };
    let mut log = client.stream_task_logs(request).await.unwrap().into_inner();
    let first = soon("the log", log.message()).await.unwrap().unwrap();
    assert_eq!((first.content.as_str(), first.is_complete), ("hello\n", false));
    assert!(first.timestamp.ends_with('Z'), "{}", first.timestamp);

    let task_id = TaskId { task_id: "my task".into() };
    assert!(client.cancel_task(task_id).await.unwrap().into_inner().success);
    let last = soon("the log's end", log.message()).await.unwrap().unwrap();
    assert!(last.is_complete);
    let result = soon("the result", peer.results.recv()).await.unwrap();
    assert_eq!((result.task_id.as_str(), result.status.as_str()), ("my task", "cancelled"));
    assert_eq!(result.logs, "hello\n");
    let unknown = client.cancel_task(TaskId { task_id: "nobody".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    worker.stop().await.unwrap();
}
