//! The clocks of one node: one that only goes forward, at a rate of its own, and one for people,
//! which may be wrong by any amount and jump.

use cloudai_model::{Monotonic, Now, Timestamp};

/// How far a node's clock may drift from true time, in millionths.
///
/// The master places a task again 3 s and a thousandth of the lease (`lease_margin_ms`) after its
/// lease is over by its own clock. A worker may need up to 1 s for the grace of a lease's end, so
/// 2 s and that thousandth are left for clocks that differ. Leases here are at most
/// [`crate::scenario::LEASE_MS_LONGEST`] = 60 s: two clocks that drift apart by 1 % each are then
/// 1.2 s apart. Real clocks drift by less than a twentieth of it.
pub(crate) const DRIFT_PPM_MAX: i64 = 10_000;
/// The same for leases that are [`crate::scenario::STRETCH`] times as long: at 600 s two clocks are
/// 2.4 s apart, and 2.6 s are left.
pub(crate) const LONG_DRIFT_PPM_MAX: i64 = 2_000;

const MILLION: i64 = 1_000_000;
/// Some day in 2026.
const WALL_START_MS: i64 = 1_795_000_000_000;

/// The clocks of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// How much faster than true time the monotonic clock runs, in millionths.
    pub(crate) drift_ppm: i64,
    /// What it showed when the world began, in milliseconds.
    pub(crate) boot_ms: u64,
    /// How wrong the wall clock is, in milliseconds.
    pub(crate) wall_error_ms: i64,
}

impl Clock {
    pub(crate) fn mono(&self, true_ms: u64) -> Monotonic {
        let rate = (MILLION + self.drift_ppm).cast_unsigned();
        Monotonic(self.boot_ms + true_ms * rate / MILLION.cast_unsigned())
    }

    /// The first true moment at which the monotonic clock shows at least `mono`.
    pub(crate) fn true_ms(&self, mono: Monotonic) -> u64 {
        let rate = (MILLION + self.drift_ppm).cast_unsigned();
        (mono.0.saturating_sub(self.boot_ms) * MILLION.cast_unsigned()).div_ceil(rate)
    }

    /// How long `ms` of this node last in true time, rounded down.
    pub(crate) fn true_span_ms(&self, ms: u64) -> u64 {
        let rate = (MILLION + self.drift_ppm).cast_unsigned();
        ms * MILLION.cast_unsigned() / rate
    }

    pub(crate) fn wall(&self, true_ms: u64) -> Timestamp {
        let wall_ms = WALL_START_MS + true_ms.cast_signed() + self.wall_error_ms;
        Timestamp(wall_ms.cast_unsigned())
    }

    pub(crate) fn now(&self, true_ms: u64) -> Now {
        Now { wall: self.wall(true_ms), mono: self.mono(true_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_true_moment_and_not_before() {
        for drift_ppm in [-DRIFT_PPM_MAX, -1, 0, 1, DRIFT_PPM_MAX] {
            let clock = Clock { drift_ppm, boot_ms: 77, wall_error_ms: 0 };
            for deadline in (77..5_000_000).step_by(7919).map(Monotonic) {
                let at = clock.true_ms(deadline);
                assert!(clock.mono(at) >= deadline, "{drift_ppm} {deadline:?}");
                assert!(at == 0 || clock.mono(at - 1) < deadline, "{drift_ppm} {deadline:?}");
            }
        }
    }
}
