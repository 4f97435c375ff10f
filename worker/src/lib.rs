//! The worker: registers with a master, runs attempts, and reports them.
//!
//! `session.rs` is the heart: one loop owns the ledger (`crates/worker-core`) and does what it
//! says. `run.rs` lives one attempt through an `executor`; `push.rs` and `upload.rs` bring its log
//! and files to the master; `grpc.rs` is the worker's own small server.
//!
//! Architecture Invariant: only the session loop touches the ledger, and nothing but the ledger
//! decides what starts, stops and is forgotten.
//!
//! Architecture Invariant: the worker needs no open port; every connection that it depends on is
//! its own.

mod adopt;
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

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cloudai_model::{HelloNumber, Resources, WorkerId};
use cloudai_proto::convert::{Hello, Registration};
use cloudai_worker_core::LedgerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{
    ATTEMPTS_MAX_DEFAULT, CapacityOverride, ExecutorConfig, WorkerConfig, WorkerError,
};

use crate::data_dir::DataDir;
use crate::engine::Executor;
use crate::health::Health;
use crate::lease_file::LeaseFile;
use crate::run::{LiveRuns, RunContext};
use crate::session::{Heritage, Identity, SessionLoop};
use crate::telemetry::{Gpus, Telemetry};
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

/// Runs a worker until `shutdown` is ready and everything that it ran has stopped.
///
/// It prints its progress as `tracing` events. A master or an engine that is away is waited for,
/// unless `config.once` is set; an error means that going on makes no sense. A process that ends
/// meanwhile, however abruptly, loses nothing: the next one takes up what it ran.
pub async fn run(
    config: WorkerConfig,
    live_count: LiveCount,
    shutdown: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    tracing::info!("Starting Worker Node: {}", config.id);
    tracing::info!("Master Address: {}", config.master);
    let endpoint = uplink::endpoint(&config.master)?;
    let dirs = DataDir::open(&config.data_dir)?;
    let listener = grpc::listen(config.listen).await?;
    let failed = |source| WorkerError::Listen { address: config.listen, source };
    let listening = listener.local_addr().map_err(failed)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let executor = tokio::select! {
        connected = Executor::connect(&config, dirs.root()) => connected?,
        () = &mut shutdown => return Ok(()),
    };
    let (capacity, telemetry) = measure(&config, &executor).await?;
    let boot_id = lease_file::boot_id().map_err(WorkerError::Telemetry)?;
    let lease_file = LeaseFile::new(dirs.lease_path(), boot_id.clone());
    let attempts = tokio::select! {
        taken_up = adopt::take_up(&executor, &dirs, &boot_id, &config) => taken_up?,
        () = &mut shutdown => return Ok(()),
    };
    let lease = lease_file.take_up(clock::mono());
    let lease = lease.map_err(|source| WorkerError::DataDir { path: dirs.lease_path(), source })?;
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
    let heritage = Heritage { attempts, lease };
    let session = SessionLoop::new(identity, context, telemetry, health, ledger, heritage);
    let renewals = tokio::spawn(lease_file.keep(session.renewals()));
    let result = session.run(shutdown).await;
    ended.cancel();
    if !executor.settle(SETTLE_TIMEOUT).await {
        tracing::error!("Containers are left behind: the engine does not remove them");
    }
    // A caller that follows a log may hold its connection open: it is not waited for.
    server.abort();
    renewals.abort();
    result
}

/// What this machine has, and the thread that watches it.
async fn measure(
    config: &WorkerConfig,
    executor: &Executor,
) -> Result<(Resources, Telemetry), WorkerError> {
    let probe = tokio::task::spawn_blocking(Gpus::probe).await;
    let gpus = probe.map_err(std::io::Error::other).flatten().map_err(WorkerError::Telemetry)?;
    let told = config.capacity.gpu_milli.map(|milli| milli.div_ceil(1000));
    let wanted = told.map_or(gpus.count, |count| u32::try_from(count).unwrap_or(u32::MAX));
    let count = executor.gpu_count(wanted).await?;
    let mut told = config.capacity;
    told.gpu_milli = told.gpu_milli.map(|milli| milli.min(u64::from(count) * 1000));
    let failed = |error| WorkerError::Telemetry(std::io::Error::other(error));
    let mut system = sysinfo::System::new().map_err(failed)?;
    let capacity = telemetry::capacity(&mut system, &config.data_dir, count, told);
    let telemetry = Telemetry::start(system, &config.data_dir, gpus);
    let telemetry = telemetry.map_err(WorkerError::Telemetry)?;
    Ok((capacity, telemetry))
}

/// The standard library's hasher is seeded by the operating system; that is all the chance that is
/// needed here.
fn draw_process() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
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
        number: Some(HelloNumber { process: draw_process(), number: 0 }),
    }
}
