//! How busy each worker said that it was, last. Beside the core: it decides nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cloudai_model::{Usage, WorkerId};

/// The last heartbeat's usage, by worker.
#[derive(Debug, Default)]
pub(crate) struct UsageTable {
    rows: Mutex<HashMap<WorkerId, Usage>>,
}

impl UsageTable {
    /// What the worker said last; `None` when it said nothing since the master started.
    pub(crate) fn find(&self, worker: &WorkerId) -> Option<Usage> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).get(worker).copied()
    }

    pub(crate) fn set(&self, worker: &WorkerId, usage: Usage) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.insert(worker.clone(), usage);
    }
}
