//! The heart over the real store, with links as the gRPC side gives them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloudai_database::SqliteStore;
use cloudai_master_core::{FullReport, Submission, WorkerHello};
use cloudai_model::{JobShape, Resources, TaskSpec, WorkerKind};
use cloudai_scheduler::PolicyKind;
use tokio::net::TcpListener;

use super::*;
use crate::dispatch::LINK_LEN_MAX;
use crate::grpc::attach_known;

/// Far above what anything here takes; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(30);

fn beat(dir: &Path) -> (HeartHandle, JoinHandle<()>) {
    let settings = HeartSettings {
        core: Settings::default(),
        policy: PolicyKind::FirstFit.build(),
        agent_deadline_ms: None,
    };
    start(Box::new(SqliteStore::open(dir).unwrap()), settings).unwrap()
}

async fn end((heart, thread): (HeartHandle, JoinHandle<()>)) {
    heart.stop().await;
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
}

fn worker() -> WorkerId {
    WorkerId::new("worker-1").unwrap()
}

fn hello(session: Option<Session>, kind: WorkerKind, address: String) -> Command {
    let held = (kind == WorkerKind::Session).then(Vec::new);
    let (volumes, version) = (BTreeSet::new(), String::new());
    let capacity = Resources { cpu_milli: 64_000, ..TaskSpec::DEFAULT_NEEDS };
    let (id, degraded) = (worker(), None);
    Command::Hello(WorkerHello {
        id,
        session,
        kind,
        address,
        capacity,
        volumes,
        version,
        held,
        degraded,
    })
}

fn report(session: Option<Session>) -> Command {
    let (changes, full) = (Vec::new(), Some(FullReport::default()));
    Command::Report { worker: worker(), session, sequence: 1, changes, full }
}

#[tokio::test]
async fn a_report_of_an_older_stream_counts_for_nothing_once_a_newer_one_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (heart, thread) = beat(dir.path());
    let link = || {
        let (orders, given) = mpsc::channel(LINK_LEN_MAX);
        let via = orders.downgrade();
        (Link { worker: worker(), kind: WorkerKind::Session, orders }, via, given)
    };
    let greet = |session| hello(session, WorkerKind::Session, "127.0.0.1:1".to_owned());
    let (first, old, _given) = link();
    let Answer::Welcome(session) = heart.hello(greet(None), first).await.unwrap() else { panic!() };
    heart.report(report(Some(session)), old.clone()).await.unwrap();
    let (second, new, _given) = link();
    // In one turn or in two: the hello came first.
    let (welcome, late) = tokio::join!(
        heart.hello(greet(Some(session)), second),
        heart.report(report(Some(session)), old.clone())
    );
    assert_eq!(welcome.unwrap(), Answer::Welcome(session));
    assert!(matches!(late, Err(HeartError::Replaced)), "{late:?}");
    let late = heart.report(report(Some(session)), old).await;
    assert!(matches!(late, Err(HeartError::Replaced)), "{late:?}");
    heart.report(report(Some(session)), new).await.unwrap();
    end((heart, thread)).await;
}

#[tokio::test]
async fn a_restarted_master_calls_the_unary_workers_that_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let first = beat(dir.path());
    let answer = first.0.command(hello(None, WorkerKind::Unary, address)).await.unwrap();
    assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
    end(first).await;
    let (heart, thread) = beat(dir.path());
    attach_known(&heart).await;
    // It is known, so that its heartbeat is taken and it need not register.
    assert_eq!(heart.command(report(None)).await.unwrap(), Answer::Reported);
    let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
    let (shape, request, known) = (JobShape::Single, None, None);
    let submit = Command::Submit(Submission { spec, shape, request, known });
    heart.command(submit).await.unwrap();
    let called = tokio::time::timeout(DEADLINE, listener.accept()).await;
    called.expect("the worker is called").unwrap();
    end((heart, thread)).await;
}
