//! A worker's disk, as `worker/src/records.rs` and `worker/src/lease_file.rs` keep it: what
//! survives of a worker process. A record grows by whole steps; the times of the leases are written
//! beside. It decides nothing. Read next: `adopt.rs` (what a restarted worker makes of it).

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudai_model::{AttemptId, Cause, Monotonic, Outcome, TaskSpec, Timestamp};
use cloudai_worker_core::LeaseTimes;

use crate::faults::WorkerPoint;
use crate::worker::WorkerWhat;
use crate::world::World;

/// How long a restarted worker asks for its attempts before a lease may end them, in milliseconds.
pub(crate) const ASK_MS: u64 = 10_000;
/// The pause between two writes of the lease's times, in milliseconds.
const LEASE_PAUSE_MS: u64 = 1_000;

/// What a machine keeps for the next worker process.
#[derive(Debug, Default)]
pub(crate) struct WorkerDisk {
    pub(crate) records: BTreeMap<AttemptId, Record>,
    lease: LeaseTimes,
}

/// The part of a process that writes the times of its leases.
#[derive(Debug, Default)]
pub(crate) struct LeaseKeeper {
    is_planned: bool,
    kept_at_ms: Option<u64>,
}

/// What is known of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) phase: Phase,
    /// The cause under which it was signalled.
    pub(crate) stopped_by: Option<Cause>,
}

/// How far it came.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// The engine may have been asked for a container; none was started.
    Accepted,
    /// There is a container, which may have been started.
    Created,
    Ended(Ended),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) outcome: Outcome,
    pub(crate) at: Timestamp,
}

impl WorkerDisk {
    pub(crate) fn write(&mut self, attempt: AttemptId, phase: Phase) {
        if let Some(record) = self.records.get_mut(&attempt) {
            record.phase = phase;
        }
    }

    /// Before a container is signalled.
    pub(crate) fn write_stop(&mut self, attempt: AttemptId, cause: Cause) {
        if let Some(record) = self.records.get_mut(&attempt) {
            record.stopped_by = Some(cause);
        }
    }

    /// The times that the process before left; one that hears no word of its master asks once.
    pub(crate) fn take_up_lease(&mut self, now: Monotonic) -> LeaseTimes {
        if self.lease.ask_until == Monotonic(0) {
            self.lease.ask_until = now.plus_ms(ASK_MS);
        }
        self.lease
    }
}

impl World {
    /// Plans a write of the lease's times when they changed, at most once in a while.
    pub(crate) fn keep_lease_soon(&mut self, worker: usize) {
        let now_ms = self.queue.now_ms();
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        if process.ledger.renewed_at() == it.disk.lease.renewed_at || process.keeper.is_planned {
            return;
        }
        process.keeper.is_planned = true;
        let at_ms = process.keeper.kept_at_ms.map_or(now_ms, |at_ms| at_ms + LEASE_PAUSE_MS);
        let ms = at_ms.saturating_sub(now_ms) + it.random.u64(0..=2);
        self.plan_worker(worker, ms, WorkerWhat::KeepLease);
    }

    pub(crate) fn keep_lease(&mut self, worker: usize) {
        let now_ms = self.queue.now_ms();
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        process.keeper = LeaseKeeper { is_planned: false, kept_at_ms: Some(now_ms) };
        let renewed_at = process.ledger.renewed_at();
        // A master was heard: the next process may ask anew.
        it.disk.lease = LeaseTimes { renewed_at, ask_until: Monotonic(0) };
    }

    /// The master has no use for it any more.
    pub(crate) fn remove_record(&mut self, worker: usize, attempt: AttemptId) {
        if !self.passes(worker, WorkerPoint::Dropped) {
            self.workers[worker].disk.records.remove(&attempt);
            self.oracle.truth.dropped(worker, attempt);
        }
    }
}
