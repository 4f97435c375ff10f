//! The judge. It stands outside: it sees what was stored, what left the master, and what really
//! happened in the containers, keeps books of its own, and never takes a core's word for what is
//! true: what the core says of what it remembers, and of why a task waits, is compared.
//!
//! Read next: `reference.rs` (what the history allows), `truth.rs` (what containers did),
//! `leases.rs` (until when a worker may go on, by the true time), `state.rs` (memory and store),
//! `waits.rs` (why tasks wait).

mod judge;
pub(crate) mod leases;
pub(crate) mod reference;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod truth;
pub(crate) mod waits;

use std::collections::BTreeMap;

use cloudai_model::JobId;

use leases::Leases;
use reference::Reference;
use truth::Truth;
use waits::Waits;

/// Everything that the judge knows.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) reference: Reference,
    pub(crate) truth: Truth,
    pub(crate) leases: Leases,
    pub(crate) waits: Waits,
    /// The job that each submit was answered with, by the number of its plan.
    answered: BTreeMap<usize, JobId>,
}

impl Oracle {
    pub(crate) fn new(reference: Reference, workers: usize) -> Self {
        let leases = Leases::new(workers);
        let (truth, waits) = (Truth::default(), Waits::default());
        Self { reference, truth, leases, waits, answered: BTreeMap::new() }
    }
}
