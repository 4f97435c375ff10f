//! Runs attempts as containers of a Docker engine.
//!
//! `connect.rs` finds the engine and its gates, `container.rs` says what is created, `life.rs` is
//! the way of one attempt from its image to its removal, and `image.rs`, `log.rs`, `output.rs`,
//! `gpu.rs` and `credentials.rs` each do one part of it.
//!
//! Architecture Invariant: every container that this module creates carries the labels of its
//! worker and is removed with its volumes, whatever happens to the attempt: by its own life, which
//! runs as a task of its own and outlives a dropped future, or by the next process, which finds it
//! ([`find`]) and takes it up or removes it.
//!
//! Architecture Invariant: no container is removed before the end of its attempt is on the disk.
//!
//! Architecture Invariant: a task never names a path of the host, a label or a security option.
//!
//! [`find`]: DockerExecutor::find

mod connect;
mod container;
mod credentials;
mod engine;
mod find;
mod gpu;
mod image;
mod keep;
mod leftovers;
mod life;
mod log;
mod output;
mod remove;
mod wait;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use cloudai_model::{Cause, Outcome, WorkerId};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::connect::Features;
pub use self::find::Found;
use self::gpu::Gpus;
pub use self::image::PULL_STALL_DEFAULT;
use self::image::Pulls;
use self::leftovers::Leftovers;
use super::{Assignment, BegunStop, Ended, Engine, ExecutorError, RunChannels};

/// Where a task leaves the files that are its result.
const OUTPUT_PATH: &str = "/output";
/// Starts in flight per core. Two keep the cores of an idle machine busy; where other work wants
/// them, two get a smaller share than a client without this bound has (0.84 of its containers a
/// second at a concurrency of 8 on two cores), and four get the same. More only add latency.
const STARTS_PER_CORE: usize = 4;

/// What the administrator says about the engine.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// Whose containers these are; a label.
    pub worker: WorkerId,
    /// Tells two workers of one id on one host apart, so that neither finds the other's
    /// containers: something that stays with the worker's data directory, such as its path.
    pub instance: String,
    /// The engine's address; `None` is `DOCKER_HOST`, else the default socket.
    pub host: Option<String>,
    /// Most containers that are being created or started at once; at least 1.
    pub starts_at_once_max: usize,
    /// The volumes that tasks may name.
    pub volumes: BTreeMap<String, VolumeSource>,
    /// How long a pull may go on without progress; see [`PULL_STALL_DEFAULT`].
    pub pull_stall: Duration,
    /// The directory of the Docker client's `config.json`; `None` is `$DOCKER_CONFIG`, else
    /// `~/.docker`.
    pub docker_config_dir: Option<PathBuf>,
}

/// What stands behind the name of a declared volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A directory of the engine's host.
    HostPath(PathBuf),
    /// A volume of the engine.
    Named(String),
}

impl DockerSettings {
    /// The defaults for a worker.
    pub fn new(worker: WorkerId, instance: impl Into<String>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            worker,
            instance: instance.into(),
            host: None,
            starts_at_once_max: cores * STARTS_PER_CORE,
            volumes: BTreeMap::new(),
            pull_stall: PULL_STALL_DEFAULT,
            docker_config_dir: None,
        }
    }
}

/// Where a run begins.
#[derive(Debug)]
pub enum Begin {
    /// At the beginning.
    New,
    /// At the beginning, though an earlier process may have asked the engine for the container; it
    /// started none.
    Again,
    /// With the container that an earlier process made.
    With {
        /// The container.
        found: Found,
        /// Whether the machine was restarted since: that may be what ended it.
        rebooted: bool,
        /// The stop that had begun.
        stop: Option<BegunStop>,
    },
}

/// The executor. Cheap to clone; clones share the engine and the bounds.
#[derive(Debug, Clone)]
pub struct DockerExecutor {
    shared: Arc<Shared>,
}

/// What all attempts share.
#[derive(Debug)]
struct Shared {
    docker: Docker,
    features: Features,
    settings: DockerSettings,
    starts: Arc<Semaphore>,
    pulls: Arc<Pulls>,
    gpus: Gpus,
    lives: TaskTracker,
    /// Cancelled when the process ends: what still waits for the disk is left to the next one.
    closing: CancellationToken,
    /// Rung when an attempt ended by a fault that may be the engine's.
    suspicion: Notify,
    leftovers: Arc<Leftovers>,
    _tending: DropGuard,
}

impl DockerExecutor {
    /// Finds the engine and learns what it can do. The error of an engine that cannot be reached
    /// says what happened, why, and what to do.
    pub async fn connect(mut settings: DockerSettings) -> Result<Self, ExecutorError> {
        let (docker, features) = connect::connect(settings.host.as_deref()).await?;
        settings.docker_config_dir = credentials::config_dir(settings.docker_config_dir);
        let starts = settings.starts_at_once_max.clamp(1, Semaphore::MAX_PERMITS);
        let (leftovers, stop) = (Arc::<Leftovers>::default(), CancellationToken::new());
        let tending = leftovers::tend(docker.clone(), settings.clone(), Arc::clone(&leftovers));
        tokio::spawn(stop.clone().run_until_cancelled_owned(tending));
        let shared = Shared {
            leftovers,
            _tending: stop.drop_guard(),
            docker,
            starts: Arc::new(Semaphore::new(starts)),
            pulls: Arc::new(Pulls::new(settings.pull_stall)),
            gpus: Gpus::new(features.gpu_count),
            lives: TaskTracker::new(),
            closing: CancellationToken::new(),
            suspicion: Notify::new(),
            features,
            settings,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Who the engine is, and what it can do.
    pub fn engine(&self) -> Engine {
        self.shared.features.engine()
    }

    /// Asks the engine for a sign of life.
    pub async fn ping(&self) -> Result<(), ExecutorError> {
        Ok(connect::ping(&self.shared.docker).await?)
    }

    /// Resolves when an attempt has ended by a fault that may be the engine's.
    pub async fn suspected(&self) {
        self.shared.suspicion.notified().await;
    }

    /// Every container that an earlier process of this worker left. To be called before the first
    /// `run`, whose containers would be among them. Each is then taken up by a `run`, or removed.
    pub async fn find(&self) -> Result<Vec<Found>, ExecutorError> {
        find::find(&self.shared).await
    }

    /// Removes a container that nobody takes up, with its volumes, in the background.
    pub fn remove(&self, found: Found) {
        let docker = self.shared.docker.clone();
        self.shared.lives.spawn(async move {
            remove::remove_surely(docker, found.id.clone()).await;
            // Until now its GPUs were held.
            drop(found);
        });
    }

    /// Runs an attempt to its end. It always ends, never panics, and its container is gone when it
    /// does, unless the engine refuses to remove it. When the future is dropped, the attempt is
    /// killed and its container removed in the background; see [`settle`].
    ///
    /// [`settle`]: DockerExecutor::settle
    ///
    /// The end is in the attempt's record before the container is removed: while the disk refuses
    /// it, the container is kept, and the end is told all the same.
    pub async fn run(&self, assignment: Assignment, channels: RunChannels, begin: Begin) -> Ended {
        let abandoned = CancellationToken::new();
        let _abandon = abandoned.clone().drop_guard();
        let attempt = assignment.attempt;
        let life = life::live(Arc::clone(&self.shared), assignment, channels, begin, abandoned);
        self.shared.leftovers.begin(attempt);
        match self.shared.lives.spawn(life).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%attempt, "The life of a container failed: {error}");
                self.shared.leftovers.end(attempt);
                let (docker, settings) = (&self.shared.docker, &self.shared.settings);
                remove::remove_strays(docker, settings, &attempt).await;
                let words = format!("a fault in the worker ended the attempt: {error}");
                Ended::unstarted(Outcome::new(Cause::Infra, words))
            }
        }
    }

    /// Waits until every attempt whose future was dropped is removed, at most for `deadline`; says
    /// whether all are. To be called before the process ends.
    pub async fn settle(&self, deadline: Duration) -> bool {
        self.shared.closing.cancel();
        self.shared.lives.close();
        let settled = tokio::time::timeout(deadline, self.shared.lives.wait()).await.is_ok();
        self.shared.lives.reopen();
        settled
    }
}
