//! The judge. It stands outside: it sees what was stored, what left the master, and what really
//! happened in the containers, keeps books of its own, and never asks the cores what is true.
//!
//! Read next: `reference.rs` (what the history allows), `truth.rs` (what containers did),
//! `leases.rs` (until when a worker may go on, by the true time), `state.rs` (memory and store).

mod judge;
pub(crate) mod leases;
pub(crate) mod reference;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod truth;

use std::collections::BTreeMap;

use cloudai_model::JobId;

use leases::Leases;
use reference::Reference;
use truth::Truth;

/// Everything that the judge knows.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) reference: Reference,
    pub(crate) truth: Truth,
    pub(crate) leases: Leases,
    /// The job that each submit was answered with, by the number of its plan.
    answered: BTreeMap<usize, JobId>,
}

impl Oracle {
    pub(crate) fn new(reference: Reference, workers: usize) -> Self {
        let leases = Leases::new(workers);
        Self { reference, truth: Truth::default(), leases, answered: BTreeMap::new() }
    }
}
