//! The heart over the real store, with links as the gRPC side gives them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloudai_database::SqliteStore;
use cloudai_master_core::{FullReport, StreamNo, Submission, Wait, WorkerHello};
use cloudai_model::{
    AttemptReport, Cause, JobShape, Outcome, ReportWhat, RequestId, Resources, TaskSpec,
    TaskStatus, Timestamp, WorkerKind,
};
use cloudai_scheduler::PolicyKind;
use tokio::net::TcpListener;

use super::*;
use crate::dispatch::LINK_LEN_MAX;
use crate::faulty_store::{Asked, FaultyStore, Goes, full, silent};
use crate::grpc::attach_known;

/// Far above what anything here takes; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(30);

type Beat = JoinHandle<Result<(), StartError>>;

fn beat(dir: &Path) -> (HeartHandle, Beat) {
    beat_over(Box::new(SqliteStore::open(dir).unwrap()))
}

fn beat_over(store: Box<dyn Store>) -> (HeartHandle, Beat) {
    let settings = HeartSettings {
        core: Settings::default(),
        policy: PolicyKind::FirstFit.build(),
        agent_deadline_ms: None,
    };
    start(store, settings, CancellationToken::new()).unwrap()
}

async fn end((heart, thread): (HeartHandle, Beat)) {
    heart.stop().await;
    tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
}

fn worker() -> WorkerId {
    WorkerId::new("worker-1").unwrap()
}

fn hello(session: Option<Session>, kind: WorkerKind, address: String) -> Command {
    let held = (kind == WorkerKind::Session).then(Vec::new);
    let (volumes, version) = (BTreeSet::new(), String::new());
    let capacity = Resources { cpu_milli: 64_000, ..TaskSpec::DEFAULT_NEEDS };
    let (id, degraded, stream) = (worker(), None, None);
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
        stream,
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

/// When a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// Nothing of it is stored.
    Before,
    /// All of it is stored, and nobody was told: the disk failed while it answered.
    After,
}

/// A disk that fails the commit of this number, and the load behind it.
fn failing(at: u32, fails: Fails) -> impl FnMut(Asked) -> Goes + Send {
    let (mut commits, mut load_fails) = (0, false);
    move |asked| match asked {
        Asked::Load if std::mem::take(&mut load_fails) => Goes::Refused(silent()),
        Asked::Load => Goes::Well,
        Asked::Commit => {
            commits += 1;
            load_fails = commits == at;
            match fails {
                _ if commits != at => Goes::Well,
                Fails::Before => Goes::Refused(full()),
                Fails::After => Goes::Unanswered(silent()),
            }
        }
    }
}

/// A worker and a client that do again what failed, as ours do.
struct Peers {
    heart: HeartHandle,
    session: Option<Session>,
    holds: Vec<AttemptReport>,
    failed: u32,
}

impl Peers {
    async fn greet(&mut self) {
        loop {
            let greeting = hello(self.session, WorkerKind::Session, "127.0.0.1:1".to_owned());
            let Command::Hello(mut greeting) = greeting else { unreachable!("it is a hello") };
            greeting.held = Some(self.holds.clone());
            match self.heart.command(Command::Hello(greeting)).await {
                Ok(Answer::Welcome(session)) => return self.session = Some(session),
                Ok(other) => panic!("{other:?}"),
                Err(_) => self.failed += 1,
            }
        }
    }

    async fn again_until_done(&mut self, command: impl Fn(Option<Session>) -> Command) -> Answer {
        loop {
            match self.heart.command(command(self.session)).await {
                Ok(answer) => return answer,
                Err(_) => self.failed += 1,
            }
            // The link ended with the old memory.
            self.greet().await;
        }
    }

    async fn report(&mut self, what: ReportWhat) {
        let attempt = "task-1-a1".parse().unwrap();
        self.holds = vec![AttemptReport { attempt, what }];
        let changes = self.holds.clone();
        let answer = self.again_until_done(|session| Command::Report {
            worker: worker(),
            session,
            sequence: 1,
            changes: changes.clone(),
            full: None,
        });
        assert_eq!(answer.await, Answer::Reported);
    }
}

#[tokio::test]
async fn a_commit_that_fails_anywhere_changes_no_outcome() {
    // The hello, the submit with its placement, the start, the end.
    for at in 0..=4 {
        for fails in [Fails::Before, Fails::After] {
            let dir = tempfile::tempdir().unwrap();
            let store = SqliteStore::open(dir.path()).unwrap();
            let store = FaultyStore { store, disk: failing(at, fails) };
            let (heart, thread) = beat_over(Box::new(store));
            let mut peers = Peers { heart, session: None, holds: Vec::new(), failed: 0 };
            peers.greet().await;
            let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
            let submit = |_| {
                let request = Some(RequestId::new("r").unwrap());
                let (spec, shape) = (Arc::clone(&spec), JobShape::Single);
                Command::Submit(Submission { spec, shape, request, known: None })
            };
            let answer = peers.again_until_done(submit).await;
            let existing = at == 2 && fails == Fails::After;
            let (job, shape) = (JobId(1), JobShape::Single);
            assert_eq!(answer, Answer::Submitted { job, shape, existing }, "{at} {fails:?}");
            peers.report(ReportWhat::Started(Timestamp(5))).await;
            let (started_at, outcome) = (Some(Timestamp(5)), Outcome::new(Cause::Exit(0), ""));
            peers.report(ReportWhat::Ended { started_at, outcome, at: Timestamp(9) }).await;
            assert_eq!(peers.failed, u32::from(at > 0), "{at} {fails:?}");
            end((peers.heart, thread)).await;
            let mut store = SqliteStore::open(dir.path()).unwrap();
            let task = TaskId::single(1);
            let record = store.reader().unwrap().find_task(task).unwrap().unwrap();
            assert_eq!(record.status(), TaskStatus::Succeeded, "{at} {fails:?}");
            assert_eq!(record.find_attempt(), Some("task-1-a1".parse().unwrap()));
            assert_eq!(store.reader().unwrap().attempts(task).unwrap(), [], "{at} {fails:?}");
            assert_eq!(store.load().unwrap().numbers.last_job, 1, "{at} {fails:?}");
        }
    }
}

fn submit() -> Command {
    let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
    Command::Submit(Submission { spec, shape: JobShape::Single, request: None, known: None })
}

/// What must come before the deadline.
async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(DEADLINE, coming).await;
    came.unwrap_or_else(|_| panic!("{what} does not come"))
}

/// A heart over a disk that is full whenever the switch says so.
fn beat_on_small_disk(dir: &Path) -> ((HeartHandle, Beat), Arc<AtomicBool>) {
    let is_full = Arc::new(AtomicBool::new(false));
    let store = SqliteStore::open(dir).unwrap();
    let has_no_room = Arc::clone(&is_full);
    let disk = move |asked| match asked {
        Asked::Commit if has_no_room.load(Ordering::SeqCst) => Goes::Refused(full()),
        Asked::Commit | Asked::Load => Goes::Well,
    };
    (beat_over(Box::new(FaultyStore { store, disk })), is_full)
}

#[tokio::test]
async fn whoever_asks_why_a_task_waits_is_told_that_the_store_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let beating = beat(dir.path());
    let link = || {
        let (orders, given) = mpsc::channel(LINK_LEN_MAX);
        (Link { worker: worker(), kind: WorkerKind::Session, orders }, given)
    };
    let greeting = |session| hello(session, WorkerKind::Session, "127.0.0.1:1".to_owned());
    let welcome = soon("a welcome", beating.0.hello(greeting(None), link().0)).await;
    let Ok(Answer::Welcome(session)) = welcome else { panic!("{welcome:?}") };
    soon("the end", end(beating)).await;
    let (beating, is_full) = beat_on_small_disk(dir.path());
    let heart = &beating.0;
    // It waits for its worker, which comes back when nothing can be stored any more.
    let answer = soon("a submit", heart.command(submit())).await.unwrap();
    let Answer::Submitted { job, .. } = answer else { panic!("{answer:?}") };
    let task = TaskId { job, index: None };
    let why = async || {
        let wait = soon("a reason", heart.explain(task)).await.unwrap().unwrap().wait;
        let view = soon("a view", heart.view()).await.unwrap();
        (wait, view.waiting.first().map(|waiting| waiting.reason.clone()))
    };
    assert_eq!(why().await, (Wait::NeverFits, Some("worker-1: inactive".to_owned())));
    is_full.store(true, Ordering::SeqCst);
    let (link, mut given) = link();
    soon("a welcome", heart.hello(greeting(Some(session)), link)).await.unwrap();
    let full = (Wait::StoreFull, Some(Wait::StoreFull.to_string()));
    assert_eq!(why().await, full);
    is_full.store(false, Ordering::SeqCst);
    assert_eq!(soon("an assign", given.recv()).await.unwrap().assign.len(), 1);
    assert!(matches!(why().await, (Wait::Held { .. }, None)));
    soon("the end", end(beating)).await;
}

#[tokio::test]
async fn an_idle_master_that_refused_a_submit_is_not_ready_until_it_keeps_one() {
    let dir = tempfile::tempdir().unwrap();
    let (beating, is_full) = beat_on_small_disk(dir.path());
    let heart = &beating.0;
    let believed = async || soon("a view", heart.view()).await.unwrap().store_full;
    assert!(!believed().await);
    is_full.store(true, Ordering::SeqCst);
    assert!(!believed().await, "nothing was refused yet");
    for _ in 0..2 {
        soon("a refusal", heart.command(submit())).await.unwrap_err();
        // One of these turns had nothing to keep.
        assert!(believed().await && believed().await);
    }
    is_full.store(false, Ordering::SeqCst);
    soon("a submit with room", heart.command(submit())).await.unwrap();
    assert!(!believed().await);
    soon("the end", end(beating)).await;
}

#[tokio::test]
async fn a_store_without_room_takes_no_submit_and_the_leases_of_what_runs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (beating, is_full) = beat_on_small_disk(dir.path());
    let heart = &beating.0;
    let (orders, mut given) = mpsc::channel(LINK_LEN_MAX);
    let via = orders.downgrade();
    let link = Link { worker: worker(), kind: WorkerKind::Session, orders };
    let greeting = hello(None, WorkerKind::Session, "127.0.0.1:1".to_owned());
    let Answer::Welcome(session) = soon("a welcome", heart.hello(greeting, link)).await.unwrap()
    else {
        panic!()
    };
    soon("a submit", heart.command(submit())).await.unwrap();
    let attempt = soon("an assign", given.recv()).await.unwrap().assign[0].0;
    is_full.store(true, Ordering::SeqCst);
    let refused = soon("a refusal", heart.command(submit())).await;
    assert!(matches!(refused, Err(HeartError::StorageFull(_))), "{refused:?}");
    // The end of a task cannot be stored; that its worker lives needs no storing.
    let ended = |sequence| {
        let outcome = Outcome::new(Cause::Exit(0), "");
        let what = ReportWhat::Ended { started_at: None, outcome, at: Timestamp(1) };
        let full = FullReport { held: vec![AttemptReport { attempt, what }], degraded: None };
        let (worker, session, changes) = (worker(), Some(session), Vec::new());
        Command::Report { worker, session, sequence, changes, full: Some(full) }
    };
    for sequence in 1..4 {
        soon("an answer", heart.report(ended(sequence), via.clone())).await.unwrap();
        let orders = soon("a number", given.recv()).await.expect("the session stays");
        assert_eq!((orders.acknowledged, orders.forget.len()), (sequence, 0), "{orders:?}");
    }
    let view = soon("a view", heart.view()).await.expect("whoever only looks is answered");
    assert_eq!((view.workers.len(), view.store_full), (1, true));
    // The same of a hello: the one that was not stored is no later one than itself.
    let outcome = Outcome::new(Cause::Exit(0), "");
    let what = ReportWhat::Ended { started_at: None, outcome, at: Timestamp(1) };
    let held = Some(vec![AttemptReport { attempt, what }]);
    let (orders, mut given) = mpsc::channel(LINK_LEN_MAX);
    let via = orders.downgrade();
    let link = Link { worker: worker(), kind: WorkerKind::Session, orders };
    let greeting = hello(Some(session), WorkerKind::Session, "127.0.0.1:1".to_owned());
    let Command::Hello(greeting) = greeting else { unreachable!("it is a hello") };
    let stream = Some(StreamNo(2));
    let greeting = Command::Hello(WorkerHello { held, stream, ..greeting });
    let answer = soon("a welcome", heart.hello(greeting, link)).await.unwrap();
    assert_eq!(answer, Answer::Welcome(session));
    is_full.store(false, Ordering::SeqCst);
    soon("an answer with room", heart.report(ended(4), via)).await.unwrap();
    let orders = soon("a forget", given.recv()).await.unwrap();
    assert_eq!((orders.acknowledged, orders.forget), (4, vec![attempt]));
    soon("a submit with room", heart.command(submit())).await.unwrap();
    assert!(!soon("a view", heart.view()).await.unwrap().store_full);
    // What waited is planned again by itself.
    assert_eq!(soon("a plan", given.recv()).await.unwrap().assign.len(), 1);
    soon("the end", end(beating)).await;
}
