//! Until when each worker may go on without word from the master, in true time: from the moment
//! when the last report was sent whose acknowledgement came back.

use std::collections::{BTreeMap, BTreeSet};

use cloudai_model::AttemptId;

/// The leases of every worker.
#[derive(Debug)]
pub(crate) struct Leases {
    workers: Vec<Known>,
    /// Attempts that a restarted process took up when their leases were over: it may ask for them,
    /// and they hold no lease until their master says so.
    asked_for: BTreeSet<AttemptId>,
    /// Attempts that their master gave up when their leases were over.
    given_up: BTreeSet<AttemptId>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    renewed_ms: u64,
    /// Reports of the present stream, by number, and when they were sent.
    sent: BTreeMap<u64, u64>,
    /// Until when a restarted process may ask its master before it ends anything.
    asks_until_ms: u64,
    /// Whether its master was heard since.
    was_heard: bool,
    has_started: bool,
}

impl Leases {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: vec![Known::default(); workers],
            asked_for: BTreeSet::new(),
            given_up: BTreeSet::new(),
        }
    }

    pub(crate) fn stream_begins(&mut self, worker: usize) {
        self.workers[worker].sent.clear();
    }

    pub(crate) fn sent(&mut self, worker: usize, sequence: u64, at_ms: u64) {
        self.workers[worker].sent.insert(sequence, at_ms);
    }

    pub(crate) fn acknowledged(&mut self, worker: usize, sequence: u64) {
        let known = &mut self.workers[worker];
        let later = known.sent.split_off(&(sequence + 1));
        let sent = std::mem::replace(&mut known.sent, later);
        if let Some(at_ms) = sent.into_values().next_back() {
            self.renewed(worker, at_ms);
        }
    }

    pub(crate) fn renewed(&mut self, worker: usize, sent_at_ms: u64) {
        let known = &mut self.workers[worker];
        known.renewed_ms = known.renewed_ms.max(sent_at_ms);
        known.was_heard = true;
    }

    /// A process begins. One that comes again without a word from its master asks only once.
    pub(crate) fn restarted(&mut self, worker: usize, now_ms: u64, ask_ms: u64) {
        let known = &mut self.workers[worker];
        if known.was_heard || !known.has_started {
            known.asks_until_ms = now_ms + ask_ms;
        }
        (known.was_heard, known.has_started) = (false, true);
    }

    pub(crate) fn asks_for(&mut self, attempt: AttemptId) {
        self.asked_for.insert(attempt);
    }

    /// Its master has said so.
    pub(crate) fn adopted(&mut self, attempt: AttemptId) {
        self.asked_for.remove(&attempt);
    }

    pub(crate) fn is_asked_for(&self, attempt: AttemptId) -> bool {
        self.asked_for.contains(&attempt)
    }

    pub(crate) fn given_up(&mut self, attempt: AttemptId) {
        self.given_up.insert(attempt);
    }

    pub(crate) fn was_given_up(&self, attempt: AttemptId) -> bool {
        self.given_up.contains(&attempt)
    }

    pub(crate) fn asks_until_ms(&self, worker: usize) -> u64 {
        self.workers[worker].asks_until_ms
    }

    /// When a lease of this true length ends.
    pub(crate) fn end_ms(&self, worker: usize, length_ms: u64) -> u64 {
        self.workers[worker].renewed_ms + length_ms
    }
}
