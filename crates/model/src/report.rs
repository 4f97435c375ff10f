//! What a worker says of an attempt: the words that both ledgers, the master's and the worker's,
//! have in common.

use crate::{AttemptId, Outcome, Timestamp};

/// What a worker knows of an attempt that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportWhat {
    /// It has the attempt; nothing started yet.
    Accepted,
    /// Its container started.
    Started(Timestamp),
    /// It is over; only the master's `forget` is missing.
    Ended {
        /// When its container started; `None` when it never did.
        started_at: Option<Timestamp>,
        /// How.
        outcome: Outcome,
        /// When its container ended; when that was known, if there was none.
        at: Timestamp,
    },
}

/// One attempt and what its worker says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReport {
    /// The attempt.
    pub attempt: AttemptId,
    /// What is said of it.
    pub what: ReportWhat,
}

/// Why a master wants an attempt to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopReason {
    /// A user's wish; the end is reported.
    Cancelled,
    /// The attempt is not the current one any more; nobody wants to hear of its end.
    Stale,
}

/// How much of a worker is in use, in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the processors.
    pub cpu_bp: u16,
    /// Of the memory.
    pub memory_bp: u16,
    /// Of the storage.
    pub storage_bp: u16,
    /// Of the GPUs.
    pub gpu_bp: u16,
}

impl Usage {
    /// All of it.
    pub const BP_MAX: u16 = 10_000;
}
