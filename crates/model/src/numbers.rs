//! The numbers that are given once and never again, also when a store was put back from a backup
//! that does not know what was given after it.
//!
//! A restored store cannot know how far the numbers got that it lost. It knows how long ago the
//! backup was made, and nothing gives numbers faster than the bounds below: so it goes on behind
//! everything that can have been given since. A second restore, of the same backup or of another
//! one of the same cluster, comes later and so goes on behind whatever the first one gave.

use crate::{AttemptNo, Session};

/// Most jobs that a cluster makes in a second, over any longer time.
pub const JOBS_PER_SECOND_MAX: u64 = 10_000;
/// Most attempts that one task has in a second, the first one included.
pub const ATTEMPTS_PER_SECOND_MAX: u32 = 64;
/// Jobs that may have been made on top of that bound in a burst.
const JOBS_IN_A_BURST_MAX: u64 = 1_000_000;

/// The last numbers that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// The number of the last job that was made; 0 before the first.
    pub last_job: u64,
    /// The number of the last session that was given; 0 before the first.
    pub last_session: u64,
    /// No attempt is given a number up to this one any more; 0 before the first restore.
    pub attempt_floor: u32,
}

impl Numbers {
    /// How often this history was cut off and taken up again; see [`Session::epoch`].
    pub const fn epoch(self) -> u32 {
        Session(self.last_session).epoch()
    }

    /// The number of a task's next attempt, when its attempts so far would make it `next`.
    #[must_use]
    pub fn attempt_no(self, next: AttemptNo) -> AttemptNo {
        next.max(AttemptNo(self.attempt_floor).next())
    }

    /// The numbers to go on from when everything was lost that these have given in the last
    /// `lost_ms` milliseconds, `highest` being the highest attempt of a task that has not ended.
    /// `None` when the numbers are used up.
    pub fn after_loss(self, highest: Option<AttemptNo>, lost_ms: u64) -> Option<Self> {
        // One second more: what was given within the second of the backup counts, too.
        let seconds = lost_ms.div_ceil(1_000).checked_add(1)?;
        let jobs = seconds.checked_mul(JOBS_PER_SECOND_MAX)?.checked_add(JOBS_IN_A_BURST_MAX)?;
        // Round, for people, in steps that a second makes: a later restore stays the higher one.
        let last_job = self.last_job.checked_next_multiple_of(JOBS_PER_SECOND_MAX)?;
        let last_job = last_job.checked_add(jobs)?;
        let passed = u32::try_from(seconds).ok()?;
        let epoch = self.epoch().checked_add(passed)?;
        let floor = highest.map_or(0, |no| no.0).max(self.attempt_floor);
        let attempt_floor = floor.checked_add(passed.checked_mul(ATTEMPTS_PER_SECOND_MAX)?)?;
        // Stores count in signed numbers.
        let fits = i64::try_from(last_job).is_ok() && i32::try_from(epoch).is_ok();
        let last_session = Session::before_epoch(epoch).0;
        fits.then_some(Self { last_job, last_session, attempt_floor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(last_job: u64, last_session: u64, attempt_floor: u32) -> Numbers {
        Numbers { last_job, last_session, attempt_floor }
    }

    #[test]
    fn numbers_go_on_behind_what_can_have_been_given() {
        let hour = given(57, 3, 0).after_loss(Some(AttemptNo(2)), 3_600_000).unwrap();
        assert_eq!(hour.last_job, 37_020_000);
        assert_eq!((hour.epoch(), Session(hour.last_session + 1).epoch()), (3_601, 3_601));
        assert_eq!(hour.attempt_floor, 2 + 64 * 3_601);
        let at_once = given(57, 3, 0).after_loss(None, 0).unwrap();
        assert_eq!(at_once, given(1_020_000, 1 << 32, 64));
    }

    #[test]
    fn a_later_restore_of_any_backup_goes_on_behind_an_earlier_one() {
        let monday = given(10, 2, 0);
        // A day and its jobs later there is a second backup.
        let tuesday = given(10 + 86_400 * JOBS_PER_SECOND_MAX, 9, 0);
        let first = tuesday.after_loss(Some(AttemptNo(1 + 64 * 86_400)), 1_000).unwrap();
        // It runs for a second, as fast as it can, and is lost as well.
        let reached = Numbers {
            last_job: first.last_job + JOBS_PER_SECOND_MAX,
            last_session: first.last_session + 1_000,
            attempt_floor: first.attempt_floor + ATTEMPTS_PER_SECOND_MAX,
        };
        for (backup, highest, lost_s) in [(monday, 1, 86_402), (tuesday, 1 + 64 * 86_400, 2)] {
            let second = backup.after_loss(Some(AttemptNo(highest)), lost_s * 1_000).unwrap();
            assert!(second.last_session > reached.last_session, "{second:?} {reached:?}");
            assert!(second.attempt_floor >= reached.attempt_floor, "{second:?} {reached:?}");
            assert!(second.last_job >= reached.last_job, "{second:?} {reached:?}");
        }
    }

    #[test]
    fn numbers_that_are_used_up_are_told_and_never_begin_again() {
        let years = |years: u64| years * 365 * 86_400_000;
        assert!(given(1, 1, 0).after_loss(None, years(2)).is_some());
        assert!(given(1, 1, 0).after_loss(None, years(3)).is_none());
        assert!(given(1, 1, 0).after_loss(None, u64::MAX).is_none());
        assert!(given(i64::MAX as u64, 1, 0).after_loss(None, 0).is_none());
        assert!(given(1, u64::MAX, 0).after_loss(None, 0).is_none());
        assert!(given(1, 1, u32::MAX - 64).after_loss(None, 0).is_some());
        assert!(given(1, 1, u32::MAX - 63).after_loss(None, 0).is_none());
    }
}
