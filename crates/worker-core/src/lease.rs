//! Until when the attempts of a worker may go on. A lease counts from the moment when a report was
//! *sent* that the master acknowledged: the master heard it later, so the worker's lease always
//! ends before the master may place the attempt anew.

use std::collections::{BTreeMap, VecDeque};

use cloudai_model::Monotonic;

/// Most sent reports that are remembered while no acknowledgement comes. Those beyond renew
/// nothing, which errs on the safe side.
const SENT_LEN_MAX: usize = 1024;

/// Until when leases run, as the process that restarts keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseTimes {
    /// When the last acknowledged report, or the hello that was welcomed, was sent.
    pub renewed_at: Monotonic,
    /// No lease ends an attempt before: a restarted worker asks its master first.
    pub ask_until: Monotonic,
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    times: LeaseTimes,
    /// Reports without an acknowledgement, by number, and when they were sent.
    sent: VecDeque<(u64, Monotonic)>,
    /// How many attempts that go on have a lease of this length.
    lengths: BTreeMap<u64, usize>,
}

impl Leases {
    /// Leases that run on from an earlier process.
    pub(crate) fn resume(times: LeaseTimes) -> Self {
        Self { times, ..Self::default() }
    }

    /// When the last report that the master is known to have was sent.
    pub(crate) const fn renewed_at(&self) -> Monotonic {
        self.times.renewed_at
    }

    /// A stream begins: what was sent on an older one will not be acknowledged.
    pub(crate) fn begin_stream(&mut self) {
        self.sent.clear();
    }

    pub(crate) fn renew(&mut self, sent_at: Monotonic) {
        self.times.renewed_at = self.times.renewed_at.max(sent_at);
    }

    pub(crate) fn sent(&mut self, sequence: u64, at: Monotonic) {
        // A later report of the same moment adds nothing to renew.
        let known = self.sent.back().is_some_and(|(_, last)| *last == at);
        if !known && self.sent.len() < SENT_LEN_MAX {
            self.sent.push_back((sequence, at));
        }
    }

    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        while let Some((_, at)) = self.sent.pop_front_if(|(number, _)| *number <= sequence) {
            self.renew(at);
        }
    }

    pub(crate) fn add(&mut self, lease_ms: u64) {
        *self.lengths.entry(lease_ms).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, lease_ms: u64) {
        let count = self.lengths.get_mut(&lease_ms).expect("a lease that ends was added");
        *count -= 1;
        if *count == 0 {
            self.lengths.remove(&lease_ms);
        }
    }

    pub(crate) fn is_over(&self, lease_ms: u64, now: Monotonic) -> bool {
        now >= self.end(lease_ms)
    }

    fn end(&self, lease_ms: u64) -> Monotonic {
        self.times.renewed_at.plus_ms(lease_ms).max(self.times.ask_until)
    }

    /// When the shortest lease ends.
    pub(crate) fn next_end(&self) -> Option<Monotonic> {
        let (shortest_ms, _) = self.lengths.first_key_value()?;
        Some(self.end(*shortest_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_beyond_the_bound_renew_nothing() {
        const LEASE_MS: u64 = 10_000;
        let mut leases = Leases::default();
        let last = SENT_LEN_MAX as u64 + 1;
        for number in 1..=last {
            leases.sent(number, Monotonic(number));
        }
        leases.acknowledge(last);
        assert_eq!(leases.end(LEASE_MS), Monotonic(last - 1 + LEASE_MS));
        leases.sent(last + 1, Monotonic(last + 1));
        leases.acknowledge(last + 1);
        assert_eq!(leases.end(LEASE_MS), Monotonic(last + 1 + LEASE_MS));
    }
}
