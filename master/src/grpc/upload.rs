//! The files of `/output`, as a worker uploads them. Names come from a container and are hostile:
//! they are only ever used relative to the attempt's own directory handle.

use std::io::Write as _;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use cloudai_failpoint::failpoint;
use cloudai_master_core::Command;
use cloudai_model::{AttemptId, AttemptReport, ReportWhat, Session, WorkerId};
use cloudai_proto::cluster::{FileChunk, FileUploadAck};
use cloudai_proto::convert::from_wire;
use tonic::{Status, Streaming};

use super::{Services, io_status};
use crate::clock;

/// Most files of one attempt.
const FILES_MAX: i32 = 10_000;
/// Most bytes of one attempt's files together.
const BYTES_MAX: u64 = 64 << 30;
/// How often files that come in keep their attempt alive: well within the heartbeats after which
/// one that is not named counts as lost.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// Longest path in bytes.
const PATH_LEN_MAX: usize = 1_024;

/// Takes one attempt's files. The same upload again writes the same files again.
pub(super) async fn receive(
    services: &Services,
    mut chunks: Streaming<FileChunk>,
) -> Result<FileUploadAck, Status> {
    let mut upload: Option<Upload> = None;
    while let Some(chunk) = chunks.message().await? {
        let attempt = from_wire::attempt(&chunk.task_id)?;
        let mut open = match upload.take() {
            Some(open) if open.attempt == attempt => open,
            Some(_) => return Err(Status::invalid_argument("one call carries one task's files")),
            None => begin(services, attempt, chunk.session).await?,
        };
        open.tell_alive(services).await;
        let written = tokio::task::spawn_blocking(move || open.take(&chunk).map(|()| open)).await;
        let written = written.map_err(|_| Status::aborted("the master is stopping"))?;
        upload = Some(written?);
    }
    failpoint!("master.upload.before_answer");
    let files_received = upload.map_or(0, |upload| upload.files);
    let message = format!("{files_received} files received");
    Ok(FileUploadAck { success: true, message, files_received })
}

async fn begin(services: &Services, attempt: AttemptId, session: u64) -> Result<Upload, Status> {
    let session = (session != 0).then_some(Session(session));
    let holder = services.check_holder(attempt, session).await?;
    let path = services.files.output_dir(attempt);
    failpoint!("master.upload.begun");
    let open = move || {
        std::fs::create_dir_all(&path)?;
        Dir::open_ambient_dir(&path, ambient_authority())
    };
    let dir = tokio::task::spawn_blocking(open).await;
    let dir = dir.map_err(|_| Status::aborted("the master is stopping"))?;
    let dir = dir.map_err(|error| io_status(&error))?;
    let silent = session.is_none().then_some(Silent { holder, told_at: Instant::now() });
    Ok(Upload { attempt, dir, silent, file: None, files: 0, bytes: 0 })
}

struct Upload {
    attempt: AttemptId,
    dir: Dir,
    silent: Option<Silent>,
    /// The file that is being written, with its name.
    file: Option<(String, File)>,
    files: i32,
    bytes: u64,
}

/// A worker that may say nothing of an attempt while its files are on their way: a unary one names
/// in its heartbeats what runs, and reports an end only behind the files.
struct Silent {
    holder: WorkerId,
    told_at: Instant,
}

impl Upload {
    /// Files that come in are word of their attempt.
    async fn tell_alive(&mut self, services: &Services) {
        let Some(silent) = &mut self.silent else { return };
        if silent.told_at.elapsed() < ALIVE_EVERY {
            return;
        }
        silent.told_at = Instant::now();
        let what = ReportWhat::Started(clock::wall());
        let changes = vec![AttemptReport { attempt: self.attempt, what }];
        let (worker, session) = (silent.holder.clone(), None);
        let report = Command::Report { worker, session, sequence: 0, changes, full: None };
        // What it comes to is the same for the files.
        drop(services.heart.command(report).await);
    }

    fn take(&mut self, chunk: &FileChunk) -> Result<(), Status> {
        self.bytes += chunk.data.len() as u64;
        if self.bytes > BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the files are larger than {BYTES_MAX} bytes together"
            )));
        }
        let current = self.file.as_ref().is_some_and(|(name, _)| *name == chunk.file_path);
        if !current {
            self.open(&chunk.file_path)?;
        }
        if let Some((_, file)) = &mut self.file {
            failpoint!("master.upload.file_opened");
            file.write_all(&chunk.data).map_err(|error| io_status(&error))?;
            failpoint!("master.upload.chunk_written");
            if chunk.is_last_chunk {
                file.sync_data().map_err(|error| io_status(&error))?;
                self.file = None;
                failpoint!("master.upload.file_synced");
            }
        }
        Ok(())
    }

    fn open(&mut self, name: &str) -> Result<(), Status> {
        let path = inside(name)?;
        if self.files >= FILES_MAX {
            return Err(Status::resource_exhausted(format!(
                "a task has more than {FILES_MAX} files"
            )));
        }
        self.files += 1;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.dir.create_dir_all(parent).map_err(|error| io_status(&error))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = self.dir.open_with(path, &options).map_err(|error| io_status(&error))?;
        self.file = Some((name.to_owned(), file));
        Ok(())
    }
}

/// The name as a path of plain components; the directory handle would stop others as well, but
/// only after it had made their parents.
fn inside(name: &str) -> Result<&Path, Status> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let named = path.file_name().is_some() && !name.ends_with('/');
    if plain && named && name.len() <= PATH_LEN_MAX && !name.contains('\0') {
        return Ok(path);
    }
    let shown: String = name.chars().take(80).collect();
    Err(Status::invalid_argument(format!("file_path '{}' is refused", shown.escape_debug())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use cloudai_database::SqliteStore;
    use cloudai_master_core::{
        Answer, FullReport, Settings, Submission, Wait, WorkerHello, bounds,
    };
    use cloudai_model::{JobShape, TaskId, TaskSpec, WorkerKind};
    use cloudai_scheduler::PolicyKind;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::agent_record::AgentRecord;
    use crate::files::TaskFiles;
    use crate::heart::{self, HeartSettings};
    use crate::readers::Readers;
    use crate::usage::UsageTable;

    fn services(dir: &Path) -> Services {
        let store = SqliteStore::open(dir).unwrap();
        let readers = Readers::open(&store).unwrap();
        let policy = PolicyKind::FirstFit.build();
        let core = Settings::default();
        let settings = HeartSettings { core, policy, agent_deadline_ms: None };
        let shutdown = CancellationToken::new();
        Services {
            heart: heart::start(Box::new(store), settings, shutdown.clone()).unwrap().0,
            readers,
            files: Arc::new(TaskFiles::new(dir)),
            usage: Arc::new(UsageTable::default()),
            agents: Arc::new(AgentRecord::new(None)),
            sessions: Arc::default(),
            shutdown,
        }
    }

    fn plain() -> WorkerId {
        WorkerId::new("plain").unwrap()
    }

    fn heartbeat(held: Vec<AttemptReport>) -> Command {
        let (worker, session, changes) = (plain(), None, Vec::new());
        let full = Some(FullReport { held, degraded: None });
        Command::Report { worker, session, sequence: 0, changes, full }
    }

    fn hello(kind: WorkerKind) -> Command {
        Command::Hello(WorkerHello {
            id: plain(),
            session: None,
            kind,
            address: "127.0.0.1:1".to_owned(),
            capacity: TaskSpec::DEFAULT_NEEDS,
            volumes: BTreeSet::new(),
            version: String::new(),
            held: (kind == WorkerKind::Session).then(Vec::new),
            degraded: None,
            stream: None,
        })
    }

    fn submit() -> Command {
        let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
        let (shape, request, known) = (JobShape::Single, None, None);
        Command::Submit(Submission { spec, shape, request, known })
    }

    #[tokio::test]
    async fn files_without_a_session_are_refused_of_a_worker_that_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let services = services(dir.path());
        let attempt: AttemptId = "task-1-a1".parse().unwrap();
        for command in [hello(WorkerKind::Session), submit()] {
            let answer = services.heart.command(command).await.unwrap();
            assert!(!matches!(answer, Answer::Rejected(_)), "{answer:?}");
        }
        let refused = begin(&services, attempt, 0).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("held under a session"), "{refused}");
        assert!(begin(&services, attempt, 1).await.is_ok());
        services.heart.stop().await;
    }

    #[tokio::test]
    async fn an_attempt_is_not_lost_while_its_files_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let services = services(dir.path());
        let attempt: AttemptId = "task-1-a1".parse().unwrap();
        let started = AttemptReport { attempt, what: ReportWhat::Started(clock::wall()) };
        for command in [hello(WorkerKind::Unary), submit(), heartbeat(vec![started])] {
            let answer = services.heart.command(command).await.unwrap();
            assert!(!matches!(answer, Answer::Rejected(_)), "{answer:?}");
        }
        let mut upload = begin(&services, attempt, 0).await.unwrap();
        for _ in 0..2 * bounds::MISSED_REPORTS_MAX {
            services.heart.command(heartbeat(Vec::new())).await.unwrap();
            let silent = upload.silent.as_mut().expect("it came without a session");
            silent.told_at = Instant::now().checked_sub(ALIVE_EVERY).unwrap();
            upload.tell_alive(&services).await;
        }
        let why = services.heart.explain(TaskId::single(1)).await.unwrap().unwrap();
        assert_eq!(why.wait, Wait::Held { worker: plain(), running: true });
        services.heart.stop().await;
    }

    #[test]
    fn a_hostile_name_is_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", ".", "a/", "a\0b", &"x".repeat(1025)] {
            assert!(inside(name).is_err(), "{name:?}");
        }
        for name in ["result.json", "a/b/c", "..x", "a b"] {
            assert!(inside(name).is_ok(), "{name:?}");
        }
    }
}
