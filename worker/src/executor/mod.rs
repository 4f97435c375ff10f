//! What runs an attempt. An executor goes forward only: prepare, create, start, wait, collect,
//! remove; it is told to stop, and it answers with an outcome, always. It knows no master, no
//! session and no ledger.

pub mod docker;
pub mod mock;

use std::path::PathBuf;
use std::sync::Arc;

use cloudai_model::{AttemptId, Cause, Outcome, Session, TaskSpec, Timestamp};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub use crate::records::{AttemptRecord, BegunStop};

use crate::logs::LogWriter;

/// One attempt, as an executor needs it.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which session; a label of the container.
    pub session: Session,
    /// What to run.
    pub spec: Arc<TaskSpec>,
}

/// What becomes known while an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something that a person wants to know: pulling, 40 % of the image.
    Note(String),
    /// The container started.
    Started(Timestamp),
}

/// The wish to end an attempt before it ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRequest {
    /// The cause that the outcome shall carry: cancelled, timeout or worker_lost.
    pub cause: Cause,
    /// From SIGTERM to SIGKILL, in milliseconds.
    pub grace_ms: u64,
}

/// The channels of one attempt.
#[derive(Debug)]
pub struct RunChannels {
    /// Bounded; an executor waits when it is full.
    pub progress: mpsc::Sender<Progress>,
    /// Where the container's output goes.
    pub log: LogWriter,
    /// `Some` once the attempt shall stop. It may be so before the container exists.
    pub stop: watch::Receiver<Option<StopRequest>>,
    /// A directory for the regular files of `/output`: not there before the first of them, or with
    /// what an earlier process took.
    pub output_dir: PathBuf,
    /// Where it is kept how far the attempt came.
    pub record: AttemptRecord,
}

/// How an attempt ended on this machine, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When its container started, if it did.
    pub started_at: Option<Timestamp>,
    /// When its container ended; now, when there was none.
    pub at: Timestamp,
    /// Files of `/output` below `RunChannels::output_dir`, as relative paths.
    pub files: Vec<PathBuf>,
}

impl Ended {
    /// The end of an attempt that never had a container.
    pub fn unstarted(outcome: Outcome) -> Self {
        Self { outcome, started_at: None, at: crate::clock::wall(), files: Vec::new() }
    }
}

/// What the engine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Name and version for people, for example `Docker Engine 20.10.24`.
    pub name: String,
    /// Devices that the engine can hand to a container.
    pub gpu_count: u32,
}

/// Why an executor cannot be used. Each says what happened, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExecutorError {
    /// Nobody answers.
    #[error("cannot reach the Docker engine at {host}: {why}; {hint}")]
    Unreachable {
        /// The address.
        host: String,
        /// Why.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// It cannot be spoken to, and waiting will not change that.
    #[error("cannot use the Docker engine at {host}: {why}; {hint}")]
    Unusable {
        /// The address.
        host: String,
        /// Why.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// The engine lacks what every attempt needs.
    #[error("{name} speaks API {api}, CloudAI needs {least} or newer: update Docker")]
    TooOld {
        /// The engine.
        name: String,
        /// Its API.
        api: String,
        /// The oldest that will do.
        least: String,
    },
    /// The engine answers, but not as it should.
    #[error("{why}; see that the engine is well ('docker info') and look at its log")]
    Engine {
        /// In words.
        why: String,
    },
}

impl ExecutorError {
    /// Whether it may be over after a while without anybody's hand on this worker.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Engine { .. })
    }
}
