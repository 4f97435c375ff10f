//! What a worker is told when it starts, and why it may not start or go on.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloudai_model::WorkerId;
use thiserror::Error;

use crate::disk::DiskLimits;
use crate::executor::docker::VolumeSource;

/// Most attempts that a worker holds at once, unless its settings say otherwise.
pub const ATTEMPTS_MAX_DEFAULT: usize = 10_000;

/// Everything that a worker process is told.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its stable identity.
    pub id: WorkerId,
    /// The host under which others reach this machine, shown to people and given to the master.
    pub host: String,
    /// `host:port` of the master.
    pub master: String,
    /// Where the unary server listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where logs and outputs wait for the master; one process a folder.
    pub data_dir: PathBuf,
    /// What runs the attempts.
    pub executor: ExecutorConfig,
    /// Volumes that tasks may name, and what stands behind them.
    pub volumes: BTreeMap<String, VolumeSource>,
    /// How long the pull of an image may go on without progress; see
    /// [`PULL_STALL_DEFAULT`](crate::executor::docker::PULL_STALL_DEFAULT).
    pub pull_stall: Duration,
    /// What is offered instead of what was measured.
    pub capacity: CapacityOverride,
    /// How much of the disk it uses.
    pub disk: DiskLimits,
    /// Most attempts that are held at once; see [`ATTEMPTS_MAX_DEFAULT`].
    pub attempts_max: usize,
    /// Whether to give up when the first registration fails, instead of trying again.
    pub once: bool,
}

/// What runs the attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorConfig {
    /// A Docker engine.
    Docker {
        /// Its address; `None` is the engine's own default.
        host: Option<String>,
    },
    /// No engine; see `executor::mock`.
    Mock,
}

/// Amounts to offer; what is `None` is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapacityOverride {
    /// Thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes.
    pub storage_bytes: Option<u64>,
    /// Thousandths of a GPU. Never more than the engine can hand out.
    pub gpu_milli: Option<u64>,
}

/// Why a worker does not start, or ends.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// `once` was set and the first registration failed.
    #[error(
        "Failed to register with master at {master}: {why}. Start the master, or name another with \
         --master (its port for workers, 50051 unless --grpc-port says otherwise)"
    )]
    Register {
        /// The master's address.
        master: String,
        /// What went wrong.
        why: String,
    },
    /// The master's address is no address.
    #[error("'{address}' is not an address of a master: give host:port, without a scheme")]
    MasterAddress {
        /// As given.
        address: String,
    },
    /// Another process registered under the same id.
    #[error(
        "another process has taken the id {id}: {message}. Two workers need two ids: start this \
         one with another --id"
    )]
    Superseded {
        /// The id.
        id: WorkerId,
        /// The master's words.
        message: String,
    },
    /// The master will not have a worker like this one.
    #[error("the master refuses this worker: {message}")]
    Rejected {
        /// The master's words.
        message: String,
    },
    /// Another process uses the data folder.
    #[error(
        "the data folder {} is in use by another worker: end that one, or give this one a folder \
         of its own with --id or --data-dir", path.display()
    )]
    DataDirInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder cannot be used.
    #[error(
        "cannot use {}: {source}. Make it readable and writable for this user. Only a worker that \
         never ran here can be given another folder with --data-dir: what it ran is in this one",
        path.display()
    )]
    DataDir {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else listens on the port.
    #[error(
        "port {} is in use: end what listens there, or choose another with --port",
        address.port()
    )]
    PortInUse {
        /// Where this worker wanted to listen.
        address: SocketAddr,
    },
    /// The port cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}. Choose another address with --bind, or another port \
         with --port"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The engine cannot be used.
    #[error("{0}")]
    Engine(String),
    /// It was told to stop before it could take up what an earlier process ran.
    #[error(
        "the tasks that an earlier process of this worker ran are not stopped ({count} in all): \
         {why}. They run on; start the worker again, and it takes them up"
    )]
    NotStopped {
        /// How many.
        count: usize,
        /// Why.
        why: Box<Self>,
    },
    /// What the kernel says of this machine cannot be read, or the thread that does cannot start.
    #[error("cannot watch this machine: is /proc mounted?")]
    Telemetry(#[source] io::Error),
}
