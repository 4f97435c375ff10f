//! How fast jobs are made: no faster than a restore counts (`crates/model/src/numbers.rs`). Not
//! durable: each run begins with next to nothing, so that restarts make nobody faster.

use cloudai_model::{JOBS_PER_SECOND_MAX, Monotonic};

use crate::core::bounds;

/// The jobs that may be made now: as many as the time since the last one is worth, and no more than
/// a second is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    left: u64,
    at: Monotonic,
}

impl Pace {
    /// Begins a run.
    pub(crate) const fn new(now: Monotonic) -> Self {
        Self { left: bounds::JOBS_AT_START, at: now }
    }

    /// Whether one more job may be made now; it is counted.
    pub(crate) fn take(&mut self, now: Monotonic) -> bool {
        let worth = now.ms_since(self.at).saturating_mul(JOBS_PER_SECOND_MAX / 1_000);
        self.left = self.left.saturating_add(worth).min(JOBS_PER_SECOND_MAX);
        self.at = self.at.max(now);
        let may = self.left > 0;
        self.left -= u64::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are given when everything is asked for at each of these moments.
    fn given(pace: &mut Pace, at_ms: impl IntoIterator<Item = u64>) -> u64 {
        let mut count = 0;
        for at in at_ms {
            while pace.take(Monotonic(at)) {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_run_never_gives_more_than_its_time_and_a_second_are_worth() {
        let mut pace = Pace::new(Monotonic(5));
        assert_eq!(given(&mut pace, [5]), bounds::JOBS_AT_START);
        assert_eq!(given(&mut pace, [5, 4, 0]), 0);
        assert_eq!(given(&mut pace, [6]), JOBS_PER_SECOND_MAX / 1_000);
        assert_eq!(given(&mut pace, 7..=1_006), JOBS_PER_SECOND_MAX);
        // What was not used is kept for a second and no longer.
        assert_eq!(given(&mut pace, [1_000_000]), JOBS_PER_SECOND_MAX);
        assert_eq!(given(&mut pace, [1_000_999]), JOBS_PER_SECOND_MAX / 1_000 * 999);
        assert_eq!(given(&mut pace, [u64::MAX]), JOBS_PER_SECOND_MAX);
    }
}
