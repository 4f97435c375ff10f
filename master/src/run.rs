//! Starting a master and ending it in good order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use cloudai_cli::Backend;
use cloudai_database::{DirLock, SqliteStore, Store, StoreError};
use cloudai_master_core::Settings;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::agent_record::AgentRecord;
use crate::backup;
use crate::clock;
use crate::config::MasterConfig;
use crate::files::TaskFiles;
use crate::grpc;
use crate::heart::{self, HeartHandle, HeartSettings, StartError};
use crate::http::{self, HttpState, MasterInfo};
use crate::readers::Readers;
use crate::usage::UsageTable;

/// Why a master cannot run.
#[derive(Debug, Error)]
pub enum MasterError {
    /// The data directory or the store in it cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds cannot be taken up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The data directory cannot be made.
    #[error(
        "cannot use the data directory {path}: {source}. Choose another with --data-dir, or make \
         it writable for this user",
        path = path.display()
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory holds what belongs to a store, and no store.
    #[error(
        "{path} holds '{found}' but no store (cloudai.db) with it: a restore into it did not come to its \
         end, or the store was taken away. Nothing was changed. Run 'cloudai restore BACKUP \
         --data-dir NEW' again into an empty directory and start the master there, or put the store \
         back",
        path = path.display()
    )]
    NoStore {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The data directory is a backup.
    #[error(
        "{path} is a backup, and no master runs in one: what was given since would be given again. \
         Nothing was changed. Run 'cloudai restore {path} --data-dir NEW' and start the master \
         there",
        path = path.display()
    )]
    IsBackup {
        /// The directory.
        path: PathBuf,
    },
    /// A port cannot be had.
    #[error(
        "cannot listen on {addr} for {what}: {source}. Another program (or another master) has \
         the port: stop it, or choose another with {flag}"
    )]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// For what.
        what: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The gRPC server ended by itself.
    #[error("the gRPC server failed: {0}. Start the master again, and report what it printed")]
    Grpc(#[from] tonic::transport::Error),
    /// A server ended by itself.
    #[error("a server of the master failed; start the master again, and report what it printed")]
    Serve,
    /// The thread that owns core and store panicked; nothing that was answered is lost.
    #[error(
        "the master's main thread failed, so the master ended. Nothing that was accepted is lost: \
         start the master again, and it goes on from its store. The log above says what happened: \
         keep it and report it"
    )]
    Heart,
    /// The store failed, and then it could not be read; nothing that was answered is lost.
    #[error(
        "the store failed and cannot be read again, so the master ended. Nothing that was accepted \
         is lost: see to the disk, then start the master again. The log above says what happened"
    )]
    StoreGone(#[source] StartError),
}

/// A master that runs.
pub struct Master {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    router: axum::Router,
    heart: HeartHandle,
    thread: JoinHandle<Result<(), StartError>>,
    shutdown: CancellationToken,
    grpc: tokio::task::JoinHandle<Result<(), MasterError>>,
    http: tokio::task::JoinHandle<()>,
}

impl Master {
    /// Opens the store, takes the ports and serves. Returns when both servers listen.
    pub async fn start(
        config: MasterConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, MasterError> {
        Self::start_with(open_store(&config.data_dir)?, config, shutdown).await
    }

    /// Takes the ports and serves what the store holds.
    async fn start_with(
        store: Box<dyn Store>,
        config: MasterConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, MasterError> {
        let description = store.describe();
        tracing::info!("Store: {description}");
        let grpc_listener = bind(config.grpc_addr, "workers and agents", "--grpc-port").await?;
        let http_listener = bind(config.http_addr, "the HTTP API", "--http-port").await?;
        let (grpc_addr, http_addr) = (addr_of(&grpc_listener)?, addr_of(&http_listener)?);
        let readers = Readers::open(store.as_ref())?;
        let files = Arc::new(TaskFiles::new(&config.data_dir));
        let usage = Arc::new(UsageTable::default());
        let settings = HeartSettings {
            core: Settings::default(),
            policy: config.policy.build(),
            agent_deadline_ms: config.agent_deadline_ms,
        };
        let (heart, thread) = heart::start(store, settings, shutdown.clone())?;
        let agents = Arc::new(AgentRecord::new(config.agent_deadline_ms));
        let probe = Arc::clone(&agents);
        let router = http::router(HttpState {
            heart: heart.clone(),
            readers: readers.clone(),
            files: Arc::clone(&files),
            usage: Arc::clone(&usage),
            info: MasterInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                store: description,
                policy: config.policy.name(),
                started_at: clock::now().mono,
                agent: Arc::new(move || probe.view()),
                grpc_address: grpc_addr.to_string(),
                host_names: config.host_names,
            },
            shutdown: shutdown.clone(),
        });
        tracing::info!("Starting gRPC server on :{}", grpc_addr.port());
        let services = grpc::Services {
            heart: heart.clone(),
            readers,
            files,
            usage,
            agents,
            sessions: Arc::default(),
            shutdown: shutdown.clone(),
        };
        let grpc = tokio::spawn(async move { Ok(grpc::serve(grpc_listener, services).await?) });
        let serving = http::serve(http_listener, router.clone(), shutdown.clone());
        let http = tokio::spawn(serving);
        tracing::info!("Master node started successfully");
        tracing::info!("gRPC server listening on :{}", grpc_addr.port());
        tracing::info!("HTTP API listening on http://{http_addr}");
        Ok(Self { grpc_addr, http_addr, router, heart, thread, shutdown, grpc, http })
    }

    /// Where workers connect.
    pub const fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where the HTTP API listens.
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The API for callers in the same process; `runtime` runs their requests.
    pub fn backend(&self, runtime: Handle) -> impl Backend + use<> {
        http::backend(self.router.clone(), runtime)
    }

    /// Serves until the shutdown, or until a server or the heart fails; then ends all of it in good
    /// order and closes the store.
    pub async fn wait(mut self) -> Result<(), MasterError> {
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            ended = &mut self.grpc => flatten(ended),
            ended = &mut self.http => ended.map_err(|_| MasterError::Serve),
        };
        self.shutdown.cancel();
        self.heart.stop().await;
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        ended?;
        match joined {
            Ok(Ok(ended)) => ended.map_err(MasterError::StoreGone),
            _ => Err(MasterError::Heart),
        }
    }
}

fn flatten(
    ended: Result<Result<(), MasterError>, tokio::task::JoinError>,
) -> Result<(), MasterError> {
    ended.unwrap_or(Err(MasterError::Serve))
}

fn open_store(data_dir: &Path) -> Result<Box<dyn Store>, MasterError> {
    let path = data_dir.to_owned();
    let unusable = |source| MasterError::DataDir { path: path.clone(), source };
    std::fs::create_dir_all(data_dir).map_err(unusable)?;
    // Whoever works there now is named rather than what it has made so far.
    drop(DirLock::take(data_dir)?);
    if backup::is_backup(data_dir).map_err(unusable)? {
        return Err(MasterError::IsBackup { path });
    }
    if let Some(found) = backup::find_orphan(data_dir).map_err(unusable)? {
        return Err(MasterError::NoStore { path, found });
    }
    Ok(Box::new(SqliteStore::open(data_dir)?))
}

async fn bind(
    addr: SocketAddr,
    what: &'static str,
    flag: &'static str,
) -> Result<TcpListener, MasterError> {
    let bound = TcpListener::bind(addr).await;
    bound.map_err(|source| MasterError::Bind { addr, what, flag, source })
}

fn addr_of(listener: &TcpListener) -> Result<SocketAddr, MasterError> {
    listener.local_addr().map_err(|_| MasterError::Serve)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use cloudai_database::MemoryStore;
    use cloudai_master_core::{Command, Submission};
    use cloudai_model::{JobShape, TaskSpec};
    use cloudai_scheduler::PolicyKind;

    use super::*;
    use crate::faulty_store::{Asked, FaultyStore, Goes, silent};
    use crate::heart::HeartError;

    /// Far above what anything here takes; reaching it is a failure.
    const DEADLINE: Duration = Duration::from_mins(1);

    /// A disk that answers until the first commit, and never again.
    fn breaking() -> impl FnMut(Asked) -> Goes + Send {
        let mut is_broken = false;
        move |asked| {
            is_broken |= asked == Asked::Commit;
            if is_broken { Goes::Refused(silent()) } else { Goes::Well }
        }
    }

    /// How a master ends whose store breaks at the first submit.
    async fn end_of(disk: impl FnMut(Asked) -> Goes + Send + 'static) -> MasterError {
        let store = FaultyStore { store: MemoryStore::default(), disk };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let data = tempfile::tempdir().unwrap();
        let config = MasterConfig {
            grpc_addr: any,
            http_addr: any,
            data_dir: data.path().to_owned(),
            policy: PolicyKind::FirstFit,
            agent_deadline_ms: None,
            host_names: None,
        };
        let shutdown = CancellationToken::new();
        let master = Master::start_with(Box::new(store), config, shutdown.clone()).await.unwrap();
        let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
        let (shape, request, known) = (JobShape::Single, None, None);
        let submit = Command::Submit(Submission { spec, shape, request, known });
        let refused = master.heart.command(submit).await;
        assert!(
            matches!(refused, Err(HeartError::Stopped | HeartError::Storage(_))),
            "{refused:?}"
        );
        let ended = tokio::time::timeout(DEADLINE, master.wait()).await;
        let error = ended.expect("the master ends by itself").unwrap_err();
        assert!(shutdown.is_cancelled(), "whoever runs beside it ends with it");
        error
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_master_whose_main_thread_fails_ends_and_says_what_to_do() {
        let error = end_of(|asked| match asked {
            Asked::Load => Goes::Well,
            Asked::Commit => panic!("a fact that cannot be"),
        })
        .await;
        assert!(matches!(error, MasterError::Heart), "{error}");
        for words in ["Nothing that was accepted is lost", "start the master again", "log above"] {
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_master_whose_store_cannot_be_read_any_more_ends_and_says_what_to_do() {
        let error = end_of(breaking()).await;
        assert!(matches!(error, MasterError::StoreGone(StartError::Store(_))), "{error}");
        for words in ["Nothing that was accepted is lost", "start the master again", "the disk"] {
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_directory_that_a_restore_left_half_made_is_refused_and_not_begun_anew() {
        // Killed while it staged; killed between its two renames, and the stage tidied away since.
        for (left, found) in [("restoring/tasks", "restoring"), ("tasks/1", "tasks")] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(dir.path().join(left)).unwrap();
            let Err(error) = open_store(dir.path()) else { panic!("{left}: it was begun anew") };
            for words in [found, "cloudai restore BACKUP", "again into an empty directory"] {
                assert!(error.to_string().contains(words), "{error}");
            }
            assert!(!dir.path().join("cloudai.db").exists(), "{left}");
        }
        // The store comes last: where it stands, the restore is whole. One without a byte is none.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tasks")).unwrap();
        std::fs::write(dir.path().join("cloudai.db"), "").unwrap();
        drop(open_store(dir.path()).unwrap());
        std::fs::create_dir_all(dir.path().join("tasks/1")).unwrap();
        std::fs::create_dir(dir.path().join("restoring")).unwrap();
        drop(open_store(dir.path()).unwrap());
        std::fs::write(dir.path().join("cloudai.db"), "").unwrap();
        let emptied = open_store(dir.path()).map(|_| "it was begun anew").unwrap_err();
        assert!(matches!(emptied, MasterError::NoStore { .. }), "{emptied}");
        std::fs::remove_dir_all(dir.path().join("tasks")).unwrap();
        std::fs::remove_dir_all(dir.path().join("restoring")).unwrap();
        std::fs::write(dir.path().join("cloudai.db-wal"), "x").unwrap();
        let emptied = open_store(dir.path()).map(|_| "it was begun anew").unwrap_err();
        assert!(emptied.to_string().contains("holds 'cloudai.db-wal' but no store"), "{emptied}");
    }

    #[test]
    fn a_backup_is_no_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_store(dir.path()).unwrap());
        std::fs::write(dir.path().join("backup.json"), "{}").unwrap();
        let refused = open_store(dir.path()).map(|_| "it was opened").unwrap_err();
        let want = format!("cloudai restore {} --data-dir NEW", dir.path().display());
        assert!(refused.to_string().contains(&want), "{refused}");
    }
}
