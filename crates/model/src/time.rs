//! Two kinds of time, never mixed: what a person reads, and what a deadline counts.

use std::fmt;

/// A moment on the wall clock, in milliseconds since the Unix epoch. For records and display only;
/// nothing in the core waits for one, because wall clocks jump.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment in milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// How many milliseconds passed from `earlier` to this moment; 0 when the clock went back.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// Longest sleep of whoever waits for a [`Monotonic`] moment, in milliseconds. The timers of a
/// program stand still while its machine sleeps and this clock goes on, so that a longer sleep
/// would be slept to its end after a deadline that passed meanwhile.
pub const NAP_MS_MAX: u64 = 1_000;

/// A moment on a clock that only goes forward and counts suspend, in milliseconds since an
/// arbitrary start. Deadlines and leases are counted in it; it means nothing after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 when it lies later.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How long to sleep now, in milliseconds, on the way to `deadline`; 0 when it is there.
    pub const fn nap_ms(self, deadline: Self) -> u64 {
        let left_ms = deadline.ms_since(self);
        if left_ms < NAP_MS_MAX { left_ms } else { NAP_MS_MAX }
    }
}

impl fmt::Debug for Monotonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}ms", self.0)
    }
}

/// The time that comes in with a command: both clocks, read once by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// For records.
    pub wall: Timestamp,
    /// For deadlines.
    pub mono: Monotonic,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How late a deadline is acted on by a program whose machine sleeps from `at` for `ms`: its
    /// timers do not count that, the clock does.
    fn late_ms(deadline: Monotonic, at: u64, ms: u64) -> u64 {
        let mut now = Monotonic(0);
        let mut has_slept = false;
        while now < deadline {
            let nap = now.nap_ms(deadline);
            let falls_asleep = !has_slept && (now.0..now.0 + nap).contains(&at);
            has_slept |= falls_asleep;
            now = now.plus_ms(if falls_asleep { nap + ms } else { nap });
        }
        // What passed while the machine slept is nobody's to act in.
        now.0 - deadline.0.max(if has_slept { at + ms } else { 0 })
    }

    #[test]
    fn a_deadline_that_passed_while_the_machine_slept_is_seen_at_once() {
        let lease = Monotonic(30_000);
        for at in [0, 1, 999, 1_000, 15_500, 29_999] {
            for ms in [1, 500, 29_000, 600_000] {
                assert!(late_ms(lease, at, ms) <= NAP_MS_MAX, "asleep at {at} for {ms} ms");
            }
        }
        assert_eq!(late_ms(lease, u64::MAX, 0), 0);
    }

    #[test]
    fn a_nap_ends_at_the_deadline_and_never_lasts_longer_than_its_bound() {
        let now = Monotonic(5_000);
        for (deadline, nap) in [(0, 0), (5_000, 0), (5_001, 1), (6_000, 1_000), (6_001, 1_000)] {
            assert_eq!(now.nap_ms(Monotonic(deadline)), nap, "{deadline}");
        }
        assert_eq!(now.nap_ms(Monotonic(u64::MAX)), NAP_MS_MAX);
    }
}
