//! What the tests of the Docker executor share: an executor with an instance of its own, runs with
//! everything that became known of them. `proxy.rs` and `registry.rs` are the two small servers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use cloudai_model::{
    AttemptId, AttemptNo, Invocation, Network, Resources, Session, TaskId, TaskSpec, WorkerId,
};
use cloudai_proto::log_record::{Decoder, LogStream};
use cloudai_worker::executor::docker::{Begin, DockerExecutor, DockerSettings};
use cloudai_worker::executor::{
    Assignment, AttemptRecord, Ended, Progress, RunChannels, StopRequest,
};
use cloudai_worker::logs;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc, watch};

/// Longest that any single thing in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// The image that runs as root.
pub(crate) const IMAGE: &str = "cloudai-test/busybox";

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that no other test of this machine uses at the same time.
pub(crate) fn unique() -> u64 {
    u64::from(std::process::id()) * 10_000 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The test images, made once a process.
fn make_images() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/images/build.sh");
        let made = Command::new("sh").arg(&script).output().unwrap();
        let words = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{}: {words}", script.display());
    });
}

/// The engine, for looking at it from the side.
pub(crate) fn engine() -> Docker {
    Docker::connect_with_defaults().unwrap()
}

/// Settings of a worker that nobody else is.
pub(crate) fn settings() -> DockerSettings {
    DockerSettings::new(WorkerId::new("worker-test").unwrap(), format!("test-{}", unique()))
}

pub(crate) async fn connect(settings: DockerSettings) -> DockerExecutor {
    make_images();
    let why = "these tests need a Docker engine";
    DockerExecutor::connect(settings).await.unwrap_or_else(|error| panic!("{why}: {error}"))
}

pub(crate) async fn executor() -> DockerExecutor {
    connect(settings()).await
}

/// A small spec that runs a shell line. Without a network, so that a test of something else does
/// not depend on the engine's bridge.
pub(crate) fn shell(text: &str) -> TaskSpec {
    let needs =
        Resources { cpu_milli: 500, memory_bytes: 64 << 20, storage_bytes: 0, gpu_milli: 0 };
    let mut spec = TaskSpec::new(IMAGE, needs);
    spec.invocation = Invocation::Shell(text.to_owned());
    spec.network = Network::None;
    spec
}

/// An attempt of `spec` that no other test runs.
pub(crate) fn assign(spec: TaskSpec) -> Assignment {
    let attempt = AttemptId { task: TaskId::indexed(unique(), 7), no: AttemptNo(1) };
    Assignment { attempt, session: Session(3), spec: Arc::new(spec) }
}

/// A run on its way: everything that its worker would hold.
pub(crate) struct Run {
    pub(crate) attempt: AttemptId,
    pub(crate) stop: watch::Sender<Option<StopRequest>>,
    pub(crate) progress: mpsc::Receiver<Progress>,
    pub(crate) handle: tokio::task::JoinHandle<Ended>,
    pub(crate) notes: Vec<String>,
    dir: TempDir,
}

/// A run that ended.
pub(crate) struct Report {
    pub(crate) ended: Ended,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) gaps: String,
    pub(crate) notes: Vec<String>,
    dir: TempDir,
}

impl Run {
    pub(crate) fn start(executor: &DockerExecutor, assignment: Assignment) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("output")).unwrap();
        Self::begin(executor, assignment, Begin::New, dir)
    }

    /// Goes on where an earlier run left its container and its folder.
    pub(crate) fn begin(
        executor: &DockerExecutor,
        assignment: Assignment,
        begin: Begin,
        dir: TempDir,
    ) -> Self {
        let output_dir = dir.path().join("output");
        let reads = Arc::new(Semaphore::new(1));
        let (log, _spool) = logs::reopen(dir.path().join("log"), 256 << 20, &reads);
        let (sender, progress) = mpsc::channel(64);
        let (stop, stop_receiver) = watch::channel(None);
        let record = AttemptRecord::unkept();
        let channels =
            RunChannels { progress: sender, log, stop: stop_receiver, output_dir, record };
        let (attempt, executor) = (assignment.attempt, executor.clone());
        let handle = tokio::spawn(async move { executor.run(assignment, channels, begin).await });
        Self { attempt, stop, progress, handle, notes: Vec::new(), dir }
    }

    /// The name that its container has unless another one had it.
    pub(crate) fn container(&self) -> String {
        format!("cloudai-{}", self.attempt)
    }

    /// Waits until the container started.
    pub(crate) async fn started(&mut self) {
        let started = async {
            while let Some(progress) = self.progress.recv().await {
                match progress {
                    Progress::Started(_) => return,
                    Progress::Note(words) => self.notes.push(words),
                }
            }
            panic!("it ended before it started: {:?}", self.notes);
        };
        tokio::time::timeout(PATIENCE, started).await.unwrap();
    }

    /// Waits for a note with these words in it.
    pub(crate) async fn noted(&mut self, want: &str) {
        let noted = async {
            while let Some(progress) = self.progress.recv().await {
                if let Progress::Note(words) = progress {
                    self.notes.push(words);
                    if self.notes.iter().any(|words| words.contains(want)) {
                        return;
                    }
                }
            }
            panic!("no note with '{want}': {:?}", self.notes);
        };
        tokio::time::timeout(PATIENCE, noted).await.unwrap();
    }

    /// Waits for the container's first bytes of output.
    pub(crate) async fn wrote(&self) {
        let wrote = async {
            while !self.dir.path().join("log").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wrote).await.unwrap();
    }

    pub(crate) async fn end(mut self) -> Report {
        let ended = async {
            while let Some(progress) = self.progress.recv().await {
                if let Progress::Note(words) = progress {
                    self.notes.push(words);
                }
            }
            (&mut self.handle).await.unwrap()
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap();
        let mut text = HashMap::from([
            (LogStream::Stdout, Vec::new()),
            (LogStream::Stderr, Vec::new()),
            (LogStream::Gap, Vec::new()),
        ]);
        let mut decoder = Decoder::default();
        for piece in std::fs::read(self.dir.path().join("log")).unwrap_or_default().chunks(1 << 16)
        {
            decoder.push(piece);
            while let Some(record) = decoder.next_record().unwrap() {
                text.get_mut(&record.stream).unwrap().extend(record.bytes);
            }
        }
        let mut take = |stream| {
            String::from_utf8_lossy(&text.remove(&stream).unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (take(LogStream::Stdout), take(LogStream::Stderr));
        let gaps = take(LogStream::Gap);
        Report { ended, stdout, stderr, gaps, notes: self.notes, dir: self.dir }
    }
}

impl Report {
    /// The cause and the message, as one text.
    pub(crate) fn outcome(&self) -> String {
        let outcome = &self.ended.outcome;
        format!("{} {}", outcome.cause, outcome.message).trim_end().to_owned()
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut files =
            self.ended.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        files.sort();
        files
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("output").join(name)
    }
}

/// Runs a shell line to its end.
pub(crate) async fn run(text: &str) -> Report {
    run_spec(shell(text)).await
}

/// Runs a spec to its end, and sees that nothing is left of it.
pub(crate) async fn run_spec(spec: TaskSpec) -> Report {
    let run = Run::start(&executor().await, assign(spec));
    let attempt = run.attempt;
    let report = run.end().await;
    assert_eq!(containers_of(&attempt).await, 0, "a container of {attempt} is left");
    report
}

/// How many containers of an attempt exist.
pub(crate) async fn containers_of(attempt: &AttemptId) -> usize {
    let filters = HashMap::from([("label", vec![format!("cloudai.attempt={attempt}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    engine().list_containers(Some(options)).await.unwrap().len()
}
