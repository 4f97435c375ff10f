//! Virtual time: what happens next, in one order for the whole world. Two things of one moment
//! happen in the order in which they were planned, so that a run is the same each time.

use std::collections::BTreeMap;

/// Everything that is going to happen.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    planned: BTreeMap<(u64, u64), T>,
    now_ms: u64,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { planned: BTreeMap::new(), now_ms: 0, sequence: 0 }
    }
}

impl<T> Queue<T> {
    /// The true time, in milliseconds since the world began. No node ever sees it.
    pub(crate) const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Plans `what` for the moment `at_ms`, or for now when that has passed.
    pub(crate) fn at(&mut self, at_ms: u64, what: T) {
        self.sequence += 1;
        self.planned.insert((at_ms.max(self.now_ms), self.sequence), what);
    }

    /// Plans `what` for `ms` milliseconds from now.
    pub(crate) fn after(&mut self, ms: u64, what: T) {
        self.at(self.now_ms.saturating_add(ms), what);
    }

    /// Goes on to the next thing that happens.
    pub(crate) fn next(&mut self) -> Option<T> {
        let ((at_ms, _), what) = self.planned.pop_first()?;
        self.now_ms = at_ms;
        Some(what)
    }
}
