//! C8: a worker whose messages come twice, late, out of order, and out of an old session. It is a
//! client of the test that speaks the wire; the master is the real one. The rules themselves are
//! tested in `crates/master-core/src/tests/fencing.rs`.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::{BUSYBOX, Cluster, until};
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use cloudai_proto::cluster::{
    Amounts, Change, Ended, FileChunk, Hello, LogPart, Report, SessionDown, SessionUp, Started,
    WorkerInfo, change, session_down, session_up,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

type Client = MasterWorkerClient<Channel>;

/// One stream of a worker that says what the test wants.
struct Stream {
    up: mpsc::UnboundedSender<SessionUp>,
    down: Streaming<SessionDown>,
    session: u64,
}

impl Stream {
    /// Opens a stream and hears the challenge.
    async fn begin(client: &mut Client) -> (Self, u64) {
        let (up, said) = mpsc::unbounded_channel();
        let down = client.session(UnboundedReceiverStream::new(said)).await.unwrap();
        let mut stream = Self { up, down: down.into_inner(), session: 0 };
        match stream.next().await {
            Some(session_down::Message::Challenge(challenge)) => (stream, challenge.nonce),
            other => panic!("no challenge but {other:?}"),
        }
    }

    /// Says hello as a new process; what it is answered.
    async fn say_hello(&mut self, nonce: u64) -> Option<session_down::Message> {
        let worker = WorkerInfo {
            worker_id: "worker-1".to_owned(),
            worker_ip: "127.0.0.1:1".to_owned(),
            total_cpu: 4.0,
            total_memory: 8.0,
            total_storage: 50.0,
            total_gpu: 0.0,
        };
        let capacity = Amounts {
            cpu_milli: 4_000,
            memory_bytes: 8 << 30,
            storage_bytes: 50 << 30,
            gpu_milli: 0,
        };
        let (worker, capacity) = (Some(worker), Some(capacity));
        let hello = Hello { worker, capacity, nonce, ..Hello::default() };
        self.up.send(SessionUp { message: Some(session_up::Message::Hello(hello)) }).unwrap();
        self.next().await
    }

    /// Says hello as a new process.
    async fn open(client: &mut Client) -> Self {
        let (mut stream, nonce) = Self::begin(client).await;
        match stream.say_hello(nonce).await {
            Some(session_down::Message::Welcome(welcome)) => stream.session = welcome.session,
            other => panic!("no welcome but {other:?}"),
        }
        stream
    }

    async fn next(&mut self) -> Option<session_down::Message> {
        self.down.message().await.ok()??.message
    }

    /// Reads orders until one satisfies `take`.
    async fn wait<T>(
        &mut self,
        what: &str,
        take: impl Fn(&cloudai_proto::cluster::Orders) -> Option<T>,
    ) -> T {
        loop {
            match self.next().await {
                Some(session_down::Message::Orders(orders)) => {
                    if let Some(found) = take(&orders) {
                        return found;
                    }
                }
                other => panic!("no {what} but {other:?}"),
            }
        }
    }

    async fn wait_assigned(&mut self, attempt: &str) {
        let is_it = |name: &String| name == attempt;
        self.wait("assignment", |orders| {
            let mut names = orders.assign.iter().map(|assign| assign.attempt.clone());
            names.any(|name| is_it(&name)).then_some(())
        })
        .await;
    }

    /// Says it and waits until it is acknowledged; the orders that came with that, in words.
    async fn report(&mut self, report: &Report) -> String {
        let sequence = report.sequence;
        self.say(report);
        self.wait("acknowledgement", |orders| {
            let stops = orders.stop.iter().map(|stop| format!("stop {}", stop.attempt));
            let forgets = orders.forget.iter().map(|attempt| format!("forget {attempt}"));
            let all: Vec<_> = stops.chain(forgets).collect();
            (orders.acknowledged == sequence).then(|| all.join(", "))
        })
        .await
    }

    fn say(&self, report: &Report) {
        let message = session_up::Message::Report(report.clone());
        // A stream that the master has closed takes nothing any more.
        drop(self.up.send(SessionUp { message: Some(message) }));
    }
}

fn report(sequence: u64, attempt: &str, what: change::What) -> Report {
    let changes = vec![Change { attempt: attempt.to_owned(), what: Some(what) }];
    Report { sequence, changes, full: None }
}

fn started(sequence: u64, attempt: &str) -> Report {
    report(sequence, attempt, change::What::Started(Started { at_unix_ms: 1_000 }))
}

fn ended(sequence: u64, attempt: &str, exit_code: i32) -> Report {
    let cause = "exit".to_owned();
    let ended = Ended { cause, exit_code, at_unix_ms: 2_000, ..Ended::default() };
    report(sequence, attempt, change::What::Ended(ended))
}

async fn push_log(client: &mut Client, session: u64, attempt: &str, text: &[u8]) -> Code {
    let part = LogPart { attempt: attempt.to_owned(), session, offset: 0, data: text.to_vec() };
    let pushed = client.push_log(tokio_stream::once(part)).await.unwrap();
    match pushed.into_inner().message().await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

async fn upload(client: &mut Client, session: u64, attempt: &str) -> Code {
    let chunk = FileChunk {
        task_id: attempt.to_owned(),
        file_path: "result".to_owned(),
        data: b"late".to_vec(),
        is_last_chunk: true,
        is_last_file: true,
        session,
        ..FileChunk::default()
    };
    let uploaded = client.upload_task_files(tokio_stream::once(chunk)).await;
    uploaded.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn stale_reports(cluster: &Cluster) -> u64 {
    cluster.get("/status").body["stale_reports"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_replays_are_no_ops() {
    let cluster = Cluster::start();
    let address = format!("http://{}", cluster.grpc_address());
    let mut client = MasterWorkerClient::connect(address).await.unwrap();
    let mut old = Stream::open(&mut client).await;

    // Doubled, and out of order: the start after the end, another end after the end.
    assert_eq!(cluster.submit(&[BUSYBOX]), "task-1");
    old.wait_assigned("task-1-a1").await;
    let (start, end) = (started(1, "task-1-a1"), ended(2, "task-1-a1", 3));
    for _ in 0..2 {
        assert_eq!(old.report(&start).await, "");
    }
    assert_eq!(old.report(&end).await, "forget task-1-a1");
    let done = cluster.wait_end("task-1");
    assert_eq!((&done["outcome"]["exit_code"], stale_reports(&cluster)), (&3.into(), 0));
    assert_eq!(old.report(&end).await, "forget task-1-a1");
    assert_eq!(old.report(&start).await, "stop task-1-a1");
    assert_eq!(old.report(&ended(3, "task-1-a1", 0)).await, "forget task-1-a1");
    assert_eq!((cluster.task("task-1"), stale_reports(&cluster)), (done, 3));

    // From an old session: another process of the worker has come, and has not got the attempt.
    assert_eq!(cluster.submit(&[BUSYBOX]), "task-2");
    old.wait_assigned("task-2-a1").await;
    let mut new = Stream::open(&mut client).await;
    assert!(new.session > old.session);
    new.wait_assigned("task-2-a2").await;
    old.say(&ended(4, "task-2-a1", 0));
    assert_eq!(new.report(&ended(1, "task-2-a1", 0)).await, "forget task-2-a1");
    assert_eq!(stale_reports(&cluster), 4);
    for (session, attempt) in [
        (old.session, "task-2-a1"),
        (new.session, "task-2-a1"),
        (old.session, "task-2-a2"),
        (new.session, "task-1-a1"),
    ] {
        let why = format!("{attempt} of session {session}");
        assert_eq!(upload(&mut client, session, attempt).await, Code::FailedPrecondition, "{why}");
        let pushed = push_log(&mut client, session, attempt, b"x").await;
        assert_eq!(pushed, Code::FailedPrecondition, "{why}");
    }
    assert_eq!(cluster.task("task-2")["status"], "assigned");

    // The current one counts, and a process that comes back with the old session must end.
    assert_eq!(new.report(&ended(2, "task-2-a2", 0)).await, "forget task-2-a2");
    let done = cluster.wait_success("task-2");
    assert_eq!(done["files"].as_array().map_or(0, Vec::len), 0, "{done:#}");
    until("the old stream is closed", || old.up.is_closed().then_some(()));
}

/// What a process says that is killed, or gives its connection up, may come after what the next one
/// says: it must neither put that one out nor take its work from it.
#[tokio::test(flavor = "multi_thread")]
async fn c8_a_hello_that_comes_too_late_is_refused() {
    let cluster = Cluster::start();
    let address = format!("http://{}", cluster.grpc_address());
    let mut client = MasterWorkerClient::connect(address).await.unwrap();
    let (mut dead, challenge) = Stream::begin(&mut client).await;
    let mut alive = Stream::open(&mut client).await;
    assert_eq!(cluster.submit(&[BUSYBOX]), "task-1");
    alive.wait_assigned("task-1-a1").await;
    let refused = |answer: Option<session_down::Message>| match answer {
        Some(session_down::Message::Refused(refused)) => refused.code,
        other => panic!("not refused but {other:?}"),
    };
    assert_eq!(refused(dead.say_hello(challenge).await), "late");
    assert_eq!(alive.report(&started(1, "task-1-a1")).await, "");
    // The challenge of another stream is no answer to that of this one.
    let (mut other, _) = Stream::begin(&mut client).await;
    assert_eq!(refused(other.say_hello(challenge).await), "late");
    assert_eq!(alive.report(&ended(2, "task-1-a1", 0)).await, "forget task-1-a1");
    cluster.wait_success("task-1");
}
