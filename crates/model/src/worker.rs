//! What the master knows for good about a worker.

use std::collections::BTreeSet;

use crate::{Resources, Session, Timestamp, WorkerId};

/// How a worker is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkerKind {
    /// Our own: one outbound session stream, leases, acknowledged logs.
    Session,
    /// One that speaks only the unary calls of the wire contract; the master calls its address.
    Unary,
}

/// A worker as it registered last. Whether it is alive is not stored: it is derived from when it
/// was heard last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its stable identity.
    pub id: WorkerId,
    /// Its present registration.
    pub session: Session,
    /// How it is spoken to.
    pub kind: WorkerKind,
    /// `host:port` of its unary server.
    pub address: String,
    /// What it offers to tasks in total.
    pub capacity: Resources,
    /// Named volumes that its administrator declared.
    pub volumes: BTreeSet<String>,
    /// The version it said it runs; empty when it said none.
    pub version: String,
    /// When it registered last.
    pub registered_at: Timestamp,
}
