//! The worker: registers with a master, runs attempts, and reports them.
//!
//! `session.rs` is the heart: one loop owns the ledger (`crates/worker-core`) and does what it
//! says. `begin.rs` comes before it: the engine, the machine, what an earlier process left.
//! `run.rs` lives one attempt through an `executor`; `push.rs` and `upload.rs` bring its log
//! and files to the master; `grpc.rs` is the worker's own small server.
//!
//! Architecture Invariant: only the session loop touches the ledger, and nothing but the ledger
//! decides what starts, stops and is forgotten.
//!
//! Architecture Invariant: the worker needs no open port; every connection that it depends on is
//! its own.

mod adopt;
mod begin;
mod clock;
mod config;
mod connection;
mod data_dir;
pub mod disk;
mod engine;
pub mod executor;
mod grpc;
mod health;
mod lease_file;
mod link;
pub mod logs;
mod push;
mod records;
mod run;
mod session;
mod telemetry;
mod unary;
mod uplink;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cloudai_model::{Resources, WorkerId};
use cloudai_proto::convert::{Hello, Registration};
use cloudai_worker_core::LedgerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{
    ATTEMPTS_MAX_DEFAULT, CapacityOverride, ExecutorConfig, WorkerConfig, WorkerError,
};

use crate::begin::Begun;
use crate::data_dir::DataDir;
use crate::health::Health;
use crate::run::{LiveRuns, RunContext};
use crate::session::{Identity, SessionLoop};
use crate::unary::Unary;

/// How long containers may take to go once everything else is over.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many attempts run now, for whoever watches the worker. Clones count the same.
#[derive(Debug, Clone, Default)]
pub struct LiveCount(Arc<AtomicUsize>);

impl LiveCount {
    /// So many.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }
}

/// Runs a worker until it is told to shut down and everything that it ran has stopped, what an
/// earlier process ran included.
///
/// It prints its progress as `tracing` events. A master or an engine that is away is waited for,
/// unless `config.once` is set; an error means that going on makes no sense. A process that ends
/// meanwhile, however abruptly, loses nothing: the next one takes up what it ran.
pub async fn run(
    config: WorkerConfig,
    live_count: LiveCount,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    tracing::info!("Starting Worker Node: {}", config.id);
    tracing::info!("Master Address: {}", config.master);
    let endpoint = uplink::endpoint(&config.master)?;
    let dirs = DataDir::open(&config.data_dir)?;
    let listener = grpc::listen(config.listen).await?;
    let failed = |source| WorkerError::Listen { address: config.listen, source };
    let listening = listener.local_addr().map_err(failed)?;
    let Some(begun) = begin::begin(&config, &dirs, &shutdown).await? else { return Ok(()) };
    let Begun { executor, capacity, telemetry, boot_id, lease_file, heritage } = begun;
    let context = Arc::new(RunContext {
        executor: executor.clone(),
        dirs,
        uplink: uplink::client(endpoint.connect_lazy()),
        session: AtomicU64::new(0),
        welcomed: CancellationToken::new(),
        boot_id,
        live: LiveRuns::default(),
        live_count,
        log_bytes_max: config.disk.log_bytes_max(),
        tracker: TaskTracker::new(),
        closing: CancellationToken::new(),
    });
    let identity = Identity {
        hello: hello(&config, listening, capacity),
        master: config.master.clone(),
        endpoint,
        once: config.once,
        port: listening.port(),
    };
    let unary = Arc::new(Unary::new(Arc::clone(&context), config.id.clone()));
    let ended = CancellationToken::new();
    let server = tokio::spawn(grpc::serve(listener, unary, ended.clone().cancelled_owned()));
    let health =
        Health::watch(executor.clone(), config.data_dir.clone(), config.disk.percent_max());
    let ledger = LedgerConfig { attempts_max: config.attempts_max };
    let session = SessionLoop::new(identity, context, telemetry, health, ledger, heritage);
    let renewals = tokio::spawn(lease_file.keep(session.renewals()));
    let result = session.run(shutdown.cancelled()).await;
    ended.cancel();
    if !executor.settle(SETTLE_TIMEOUT).await {
        tracing::error!("Containers are left behind: the engine does not remove them");
    }
    // A caller that follows a log may hold its connection open: it is not waited for.
    server.abort();
    renewals.abort();
    result
}

fn hello(config: &WorkerConfig, listening: SocketAddr, capacity: Resources) -> Hello {
    let host = match config.host.parse::<std::net::Ipv6Addr>() {
        Ok(host) => format!("[{host}]"),
        Err(_) => config.host.clone(),
    };
    Hello {
        worker: Registration {
            id: WorkerId::clone(&config.id),
            address: format!("{host}:{}", listening.port()),
            capacity,
        },
        session: None,
        held: Vec::new(),
        volumes: config.volumes.keys().cloned().collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        degraded: None,
        nonce: 0,
    }
}
