//! A master that does what a test says: it speaks the wire and knows nothing else.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a part of the tests, of which one uses it"
)]

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudai_model::{
    AttemptId, AttemptReport, Invocation, ReportWhat, Resources, TaskSpec, WorkerId,
};
use cloudai_proto::cluster::master_worker_server::{MasterWorker, MasterWorkerServer};
use cloudai_proto::cluster::*;
use cloudai_proto::convert::{Change, Hello, Orders, Report, from_wire, to_wire};
use cloudai_worker::disk::DiskLimits;
use cloudai_worker::{CapacityOverride, ExecutorConfig, LiveCount, WorkerConfig, WorkerError};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// What every stream is challenged with.
const NONCE: u64 = u64::MAX;

/// Longer than any state takes to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} never came"))
}

/// What workers brought.
#[derive(Default)]
pub struct Brought {
    pub logs: Mutex<HashMap<String, Vec<u8>>>,
    pub files: Mutex<HashMap<String, Vec<u8>>>,
    /// How many log parts are stored, and their call then broken off, before all goes well.
    pub broken_parts: AtomicUsize,
    /// How the next ends of a log's parts are answered, before all goes well. Each time the log is
    /// lost: the power failed before it was safe.
    pub lost_ends: Mutex<VecDeque<LostEnd>>,
}

/// The answer to the end of a log's parts by a master that lost them.
#[derive(Debug, Clone, Copy)]
pub enum LostEnd {
    /// The call breaks.
    Broken,
    /// The call ends well without an answer.
    Silent,
    /// How much is left.
    Told,
}

pub struct Peer {
    pub address: String,
    pub brought: Arc<Brought>,
    sessions: mpsc::Receiver<Session>,
    pub results: mpsc::Receiver<TaskResult>,
    _server: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One session stream, from the master's side.
pub struct Session {
    pub hello: Hello,
    up: Streaming<SessionUp>,
    down: mpsc::Sender<Result<SessionDown, Status>>,
}

impl Peer {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(address: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sessions_sender, sessions) = mpsc::channel(16);
        let (results_sender, results) = mpsc::channel(16);
        let brought = Arc::new(Brought::default());
        let service = Service {
            sessions: sessions_sender,
            results: results_sender,
            brought: Arc::clone(&brought),
        };
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(MasterWorkerServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self { address, brought, sessions, results, _server: AbortOnDrop(server) }
    }

    pub async fn accept(&mut self) -> Session {
        soon("a session", self.sessions.recv()).await.unwrap()
    }

    pub async fn welcome(&mut self, session: u64) -> Session {
        let opened = self.accept().await;
        let welcome = Welcome { session, heartbeat_ms: 200 };
        opened.send(session_down::Message::Welcome(welcome)).await;
        opened
    }
}

impl Session {
    pub async fn send(&self, message: session_down::Message) {
        self.down.send(Ok(SessionDown { message: Some(message) })).await.unwrap();
    }

    pub async fn refuse(&self, code: &str) {
        let refused = Refused { code: code.into(), message: "said the peer".into() };
        self.send(session_down::Message::Refused(refused)).await;
    }

    pub async fn order(&self, orders: Orders) {
        self.down.send(Ok(to_wire::orders(&orders))).await.unwrap();
    }

    pub async fn assign(&self, attempt: &str, command: &str) {
        let assign = vec![(id(attempt), Arc::new(spec(command)))];
        self.order(Orders { assign, ..Orders::default() }).await;
    }

    pub async fn forget(&self, attempt: &str) {
        self.order(Orders { forget: vec![id(attempt)], ..Orders::default() }).await;
    }

    pub async fn message(&mut self) -> Option<session_up::Message> {
        soon("a message", self.up.message()).await.unwrap()?.message
    }

    pub async fn report(&mut self) -> Report {
        match self.message().await {
            Some(session_up::Message::Report(report)) => from_wire::report(report).unwrap(),
            other => panic!("a report was due: {other:?}"),
        }
    }

    /// Reads reports until one says this of the attempt.
    pub async fn wait_for(&mut self, attempt: &str, want: &str) {
        loop {
            for change in self.report().await.changes {
                let Change::State(report) = change else { continue };
                if report.attempt == id(attempt) && told(&report.what) == want {
                    return;
                }
            }
        }
    }

    /// What the next full report says that the worker holds.
    pub async fn held(&mut self) -> Vec<String> {
        loop {
            if let Some(full) = self.report().await.full {
                return held(&full.held);
            }
        }
    }
}

pub fn held(reports: &[AttemptReport]) -> Vec<String> {
    reports.iter().map(|report| format!("{} {}", report.attempt, told(&report.what))).collect()
}

fn told(what: &ReportWhat) -> String {
    match what {
        ReportWhat::Accepted => "accepted".into(),
        ReportWhat::Started(_) => "started".into(),
        ReportWhat::Ended { outcome, .. } => outcome.cause.to_string(),
    }
}

pub fn id(attempt: &str) -> AttemptId {
    attempt.parse().unwrap()
}

pub fn spec(command: &str) -> TaskSpec {
    let mut spec = TaskSpec::new("mock", TaskSpec::DEFAULT_NEEDS);
    spec.invocation = match command {
        "" => Invocation::Image,
        _ => Invocation::Shell(command.to_owned()),
    };
    spec
}

/// A running worker.
pub struct Worker {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
    pub data_dir: PathBuf,
    _dir: tempfile::TempDir,
}

pub fn config(master: &str, data_dir: PathBuf) -> WorkerConfig {
    WorkerConfig {
        id: WorkerId::new("worker-1").unwrap(),
        host: "localhost".into(),
        master: master.into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir,
        executor: ExecutorConfig::Mock,
        volumes: std::collections::BTreeMap::new(),
        capacity: CapacityOverride { cpu_milli: Some(4000), ..CapacityOverride::default() },
        disk: DiskLimits::default(),
        attempts_max: cloudai_worker::ATTEMPTS_MAX_DEFAULT,
        pull_stall: cloudai_worker::executor::docker::PULL_STALL_DEFAULT,
        once: false,
    }
}

impl Worker {
    pub fn start(master: &str) -> Self {
        Self::start_with(master, |_| {})
    }

    pub fn start_with(master: &str, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("worker");
        let mut config = config(master, data_dir.clone());
        change(&mut config);
        let shutdown = CancellationToken::new();
        let run = cloudai_worker::run(config, LiveCount::default(), shutdown.clone());
        let task = tokio::spawn(run);
        Self { shutdown, task, data_dir, _dir: dir }
    }

    pub async fn ended(self) -> Result<(), WorkerError> {
        soon("the worker's end", self.task).await.unwrap()
    }

    pub async fn stop(self) -> Result<(), WorkerError> {
        self.shutdown.cancel();
        self.ended().await
    }

    pub fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Everything that waits on the worker's disk for its master.
    pub fn left_on_disk(&self) -> usize {
        ["spool", "output"]
            .iter()
            .map(|name| std::fs::read_dir(self.data_dir.join(name)).unwrap().count())
            .sum()
    }
}

struct Service {
    sessions: mpsc::Sender<Session>,
    results: mpsc::Sender<TaskResult>,
    brought: Arc<Brought>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MasterWorker for Service {
    type SessionStream = Answers<SessionDown>;

    async fn session(
        &self,
        request: Request<Streaming<SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut up = request.into_inner();
        let (down, receiver) = mpsc::channel(16);
        let challenge = session_down::Message::Challenge(Challenge { nonce: NONCE });
        down.send(Ok(SessionDown { message: Some(challenge) })).await.unwrap();
        let sessions = self.sessions.clone();
        tokio::spawn(async move {
            // A worker that goes before it said hello is of no interest.
            let Ok(Some(first)) = up.message().await else { return };
            let Some(session_up::Message::Hello(hello)) = first.message else {
                panic!("a hello comes first: {first:?}")
            };
            let hello = from_wire::hello(hello).unwrap();
            assert_eq!(hello.nonce, NONCE, "the hello answers the challenge");
            sessions.send(Session { hello, up, down }).await.unwrap();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type PushLogStream = Answers<LogStored>;

    async fn push_log(
        &self,
        request: Request<Streaming<LogPart>>,
    ) -> Result<Response<Self::PushLogStream>, Status> {
        let mut parts = request.into_inner();
        let (answers, receiver) = mpsc::channel(1);
        let brought = Arc::clone(&self.brought);
        tokio::spawn(async move {
            let mut stored = 0;
            while let Ok(Some(part)) = parts.message().await {
                stored = append(&brought, &part);
                let left = brought.broken_parts.load(Ordering::SeqCst);
                if left > 0 {
                    brought.broken_parts.store(left - 1, Ordering::SeqCst);
                    let _ = answers.send(Err(Status::unavailable("broken off"))).await;
                    return;
                }
                let _ = answers.send(Ok(LogStored { stored })).await;
            }
            let _ = match end_log(&brought) {
                None => answers.send(Ok(LogStored { stored })).await,
                Some(LostEnd::Told) => answers.send(Ok(LogStored { stored: 0 })).await,
                Some(LostEnd::Broken) => answers.send(Err(Status::unavailable("broken off"))).await,
                Some(LostEnd::Silent) => Ok(()),
            };
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn upload_task_files(
        &self,
        request: Request<Streaming<FileChunk>>,
    ) -> Result<Response<FileUploadAck>, Status> {
        let mut chunks = request.into_inner();
        let mut files_received = 0;
        while let Some(chunk) = chunks.message().await? {
            let name = format!("{}/{}", chunk.task_id, chunk.file_path);
            let mut files = self.brought.files.lock().unwrap();
            files.entry(name).or_default().extend_from_slice(&chunk.data);
            files_received += i32::from(chunk.is_last_chunk);
        }
        Ok(Response::new(FileUploadAck { success: true, message: String::new(), files_received }))
    }

    async fn report_task_completion(
        &self,
        request: Request<TaskResult>,
    ) -> Result<Response<Ack>, Status> {
        self.results.send(request.into_inner()).await.unwrap();
        Ok(Response::new(Ack { success: true, message: "Task result received".into() }))
    }

    async fn register_worker(
        &self,
        _: Request<WorkerInfo>,
    ) -> Result<Response<RegisterAck>, Status> {
        Err(Status::unimplemented("not for our own workers"))
    }

    async fn send_heartbeat(
        &self,
        _: Request<Heartbeat>,
    ) -> Result<Response<HeartbeatAck>, Status> {
        Err(Status::unimplemented("not for our own workers"))
    }

    async fn assign_task(&self, _: Request<Task>) -> Result<Response<TaskAck>, Status> {
        Err(Status::unimplemented("a worker serves this"))
    }

    async fn cancel_task(&self, _: Request<TaskId>) -> Result<Response<TaskAck>, Status> {
        Err(Status::unimplemented("a worker serves this"))
    }

    type StreamTaskLogsStream = Answers<LogChunk>;

    async fn stream_task_logs(
        &self,
        _: Request<TaskLogRequest>,
    ) -> Result<Response<Self::StreamTaskLogsStream>, Status> {
        Err(Status::unimplemented("a worker serves this"))
    }
}

/// Keeps a part that begins where the log ends; says how long the log is.
fn append(brought: &Brought, part: &LogPart) -> u64 {
    let mut logs = brought.logs.lock().unwrap();
    let log = logs.entry(part.attempt.clone()).or_default();
    if part.offset == log.len() as u64 {
        log.extend_from_slice(&part.data);
    }
    log.len() as u64
}

/// How the end of a log is answered; all logs are lost unless it goes well.
fn end_log(brought: &Brought) -> Option<LostEnd> {
    let end = brought.lost_ends.lock().unwrap().pop_front();
    if end.is_some() {
        brought.logs.lock().unwrap().clear();
    }
    end
}

pub fn log_text(brought: &Brought, attempt: &str) -> String {
    let mut decoder = cloudai_proto::log_record::Decoder::default();
    decoder.push(brought.logs.lock().unwrap().get(attempt).map_or(&[], Vec::as_slice));
    let mut bytes = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        bytes.extend_from_slice(&record.bytes);
    }
    String::from_utf8(bytes).unwrap()
}

pub fn cores(capacity: Resources) -> u64 {
    capacity.cpu_milli
}
