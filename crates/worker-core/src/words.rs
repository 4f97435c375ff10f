//! What comes into the ledger, and what goes out.

use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptReport, Cause, Monotonic, Outcome, Session, StopReason, TaskSpec, Timestamp,
};

/// What happened to the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The master gives an attempt.
    Assign {
        /// Which.
        attempt: AttemptId,
        /// What to run.
        spec: Arc<TaskSpec>,
    },
    /// The master wants an attempt to stop.
    Stop {
        /// Which.
        attempt: AttemptId,
        /// Why.
        reason: StopReason,
    },
    /// The master stored the attempt's end.
    Forget {
        /// Which.
        attempt: AttemptId,
    },
    /// The executor said that the attempt's container started.
    Started {
        /// Which.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
    },
    /// The executor is done with the attempt.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
        /// When.
        at: Timestamp,
    },
    /// The master has the attempt's log and files: its end may be reported.
    Delivered {
        /// Which.
        attempt: AttemptId,
    },
    /// The master welcomed the hello that was sent at this moment.
    Welcomed {
        /// The session that the process has from now on.
        session: Session,
        /// When the hello was sent.
        hello_sent_at: Monotonic,
    },
    /// The master does not know the session: the next hello asks for a new one.
    SessionUnknown,
    /// The master stored every report up to this one.
    Acknowledged {
        /// Its number.
        sequence: u64,
    },
    /// Time passed; a lease may have ended.
    Tick,
    /// The process shall end: everything stops and nothing new is taken.
    ShutDown,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Run this attempt; never asked for twice.
    Start {
        /// Which.
        attempt: AttemptId,
        /// What to run.
        spec: Arc<TaskSpec>,
    },
    /// End this attempt; its end comes back as [`Input::Ended`].
    Stop {
        /// Which.
        attempt: AttemptId,
        /// The cause that its outcome shall carry.
        cause: Cause,
        /// From SIGTERM to SIGKILL.
        grace_ms: u64,
    },
    /// Nothing of this attempt is needed any more: remove its log and files.
    Drop {
        /// Which.
        attempt: AttemptId,
    },
    /// An assign was not taken. It is to be reported as ended, so that the task is tried again: the
    /// master would give it again with each full report where it is missing.
    Refuse {
        /// Which.
        attempt: AttemptId,
        /// Why.
        reason: RefusalReason,
    },
}

/// Why an assign is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// This attempt, or a later one of the same task, was here before.
    Outdated,
    /// The worker holds as many attempts as it may.
    Full,
    /// The worker is about to end.
    ShuttingDown,
}

/// An attempt that an earlier process of this worker held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What is known of it. One that ended is not yet delivered.
    pub report: AttemptReport,
    /// What it runs.
    pub spec: Arc<TaskSpec>,
}

/// What goes to the master in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number, from 1 in each stream.
    pub sequence: u64,
    /// What changed since the last one, in order.
    pub changes: Vec<AttemptReport>,
    /// Everything that is held, when that was asked for.
    pub full: Option<Vec<AttemptReport>>,
}
