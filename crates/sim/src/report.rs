//! What a run, or many, came to: figures only.

use std::collections::BTreeMap;

use crate::faults::Class;

/// The figures of one run, or the sum of many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// Things that happened.
    pub(crate) happenings: u64,
    /// Events that were stored.
    pub(crate) events: u64,
    /// Virtual time, in milliseconds.
    pub(crate) virtual_ms: u64,
    faults: BTreeMap<Class, u64>,
}

impl Report {
    pub(crate) fn count(&mut self, class: Class) {
        *self.faults.entry(class).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.happenings += other.happenings;
        self.events += other.events;
        self.virtual_ms += other.virtual_ms;
        for (class, count) in &other.faults {
            *self.faults.entry(*class).or_default() += count;
        }
    }

    pub(crate) fn faults(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        Class::ALL.iter().map(|class| (*class, self.faults.get(class).copied().unwrap_or(0)))
    }
}
