//! The border: the one place where wire becomes model and model becomes wire.
//!
//! [`from_wire`] checks everything that a peer may get wrong and names the field; behind it, no
//! code meets a NaN, an empty id or a word that does not exist. [`to_wire`] cannot fail. A missing
//! extension field means "the peer does not know it" and becomes the default, here and nowhere
//! else.
//!
//! Rounding: cores and GPUs become thousandths, GiB become bytes, both to the nearest (half away
//! from zero), so that what `to_wire` wrote comes back exactly.

pub mod from_wire;
pub mod record;
pub mod to_wire;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptReport, Outcome, Resources, Session, StopReason, TaskSpec, Timestamp, Usage,
    WorkerId,
};

/// Bytes in a GiB.
const GIB: f64 = 1_073_741_824.0;
/// The port of a worker's unary server when an address names none.
pub const WORKER_PORT: u16 = 50052;
/// Longest reason for which a worker is degraded, in bytes; the rest is cut off.
pub const DEGRADED_LEN_MAX: usize = 512;

/// The field of a message that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertError {
    /// The field as the proto names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl ConvertError {
    /// An error about `field`.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl std::error::Error for ConvertError {}

impl From<ConvertError> for tonic::Status {
    fn from(error: ConvertError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// A worker as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub id: WorkerId,
    /// `host:port` of its unary server.
    pub address: String,
    /// What it offers in total.
    pub capacity: Resources,
}

/// The first message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who.
    pub worker: Registration,
    /// The session that the process already has.
    pub session: Option<Session>,
    /// Everything that the process holds.
    pub held: Vec<AttemptReport>,
    /// The volumes that its administrator declared.
    pub volumes: BTreeSet<String>,
    /// What it runs; empty when it did not say.
    pub version: String,
    /// Why it should get no new work; `None` when it is well. At most [`DEGRADED_LEN_MAX`] bytes.
    pub degraded: Option<String>,
    /// That of the challenge that it answers.
    pub nonce: u64,
}

/// One message of a worker in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Counts up within a stream.
    pub sequence: u64,
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// Everything that the process holds, with each heartbeat.
    pub full: Option<FullReport>,
}

/// A change of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Its state.
    State(AttemptReport),
    /// Words for people.
    Note {
        /// The attempt.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
        /// What.
        text: String,
    },
}

/// Everything that a worker holds, how busy it is, and whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullReport {
    /// The attempts.
    pub held: Vec<AttemptReport>,
    /// Of the worker's capacity.
    pub usage: Usage,
    /// Why it should get no new work; `None` when it is well. At most [`DEGRADED_LEN_MAX`] bytes.
    pub degraded: Option<String>,
}

/// What a master wants of a session's worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orders {
    /// The highest report that is stored; 0 when none is new.
    pub acknowledged: u64,
    /// Attempts to take.
    pub assign: Vec<(AttemptId, Arc<TaskSpec>)>,
    /// Attempts to stop.
    pub stop: Vec<(AttemptId, StopReason)>,
    /// Attempts whose end is stored.
    pub forget: Vec<AttemptId>,
}

/// A heartbeat of a worker that speaks only the unary calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnaryHeartbeat {
    /// Who.
    pub worker: WorkerId,
    /// What it runs. Tasks that it has from somebody else are left out.
    pub running: Vec<AttemptId>,
    /// How busy it is.
    pub usage: Usage,
}

/// A result of a worker that speaks only the unary calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnaryResult {
    /// Which attempt ended.
    pub attempt: AttemptId,
    /// Who says so.
    pub worker: WorkerId,
    /// How. The wire has no exit code: a failure counts as exit code 1.
    pub outcome: Outcome,
    /// The whole log, when the worker did not stream it.
    pub logs: String,
}

#[cfg(test)]
mod tests;
