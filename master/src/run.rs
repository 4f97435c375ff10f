//! Starting a master and ending it in good order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use cloudai_cli::Backend;
use cloudai_database::{SqliteStore, Store, StoreError};
use cloudai_master_core::Settings;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::agent_record::AgentRecord;
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
    #[error("the master's main thread failed; start the master again, and report what it printed")]
    Heart,
}

/// A master that runs.
pub struct Master {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    router: axum::Router,
    heart: HeartHandle,
    thread: JoinHandle<()>,
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
        let store = open_store(&config)?;
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
        let (heart, thread) = heart::start(store, settings)?;
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
                started_at: clock::wall(),
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

    /// Serves until the shutdown, or until a server fails; then ends everything in good order and
    /// closes the store.
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
            Ok(Ok(())) => Ok(()),
            _ => Err(MasterError::Heart),
        }
    }
}

fn flatten(
    ended: Result<Result<(), MasterError>, tokio::task::JoinError>,
) -> Result<(), MasterError> {
    ended.unwrap_or(Err(MasterError::Serve))
}

fn open_store(config: &MasterConfig) -> Result<Box<dyn Store>, MasterError> {
    let path = config.data_dir.clone();
    std::fs::create_dir_all(&path).map_err(|source| MasterError::DataDir { path, source })?;
    Ok(Box::new(SqliteStore::open(&config.data_dir)?))
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
