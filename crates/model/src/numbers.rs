//! The numbers that are given once and never again, also when a store was put back from a backup
//! that does not know what was given after it.
//!
//! A restored store cannot know how far the numbers got that it lost. It knows how long ago the
//! backup was made, and the master gives numbers no faster than the bounds below: `n` seconds of
//! its run use up at most `n + 1` seconds' worth of a bound, and no more than `n` from its start
//! on. A restore counts every second of the loss, the one that has begun included, with twice the
//! bound. So it goes on behind everything that was given since; and a second restore, of the same
//! backup or of another one of the same cluster, goes on behind what the first one gave, because a
//! restored directory is handed over when the second is over in which it was made.

use crate::{AttemptNo, Session};

/// Most jobs that a cluster makes in a second; a submit above that is refused for the moment.
pub const JOBS_PER_SECOND_MAX: u64 = 20_000;
/// Most attempts that one task has in a second: all but the first few losses are waited out.
pub const ATTEMPTS_PER_SECOND_MAX: u32 = 8;
/// How much faster a restore counts than numbers are given.
const MARGIN: u32 = 2;

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

    /// The seconds that a restore counts when `lost_ms` milliseconds are lost: those that have
    /// begun. Nobody may use what it made before they are over.
    pub const fn seconds_lost(lost_ms: u64) -> u64 {
        lost_ms / 1_000 + 1
    }

    /// The numbers to go on from when everything was lost that these have given in the last
    /// `lost_ms` milliseconds, `highest` being the highest attempt of a task that has not ended.
    /// `None` when the numbers are used up.
    pub fn after_loss(self, highest: Option<AttemptNo>, lost_ms: u64) -> Option<Self> {
        let seconds = Self::seconds_lost(lost_ms);
        let jobs = seconds.checked_mul(JOBS_PER_SECOND_MAX * u64::from(MARGIN))?;
        let last_job = self.last_job.checked_add(jobs)?;
        let passed = u32::try_from(seconds).ok()?;
        let epoch = self.epoch().checked_add(passed)?;
        let floor = highest.map_or(0, |no| no.0).max(self.attempt_floor);
        let attempts = passed.checked_mul(ATTEMPTS_PER_SECOND_MAX * MARGIN)?;
        let attempt_floor = floor.checked_add(attempts)?;
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
        assert_eq!(hour.last_job, 57 + 3_601 * 40_000);
        assert_eq!((hour.epoch(), Session(hour.last_session + 1).epoch()), (3_601, 3_601));
        assert_eq!(hour.attempt_floor, 2 + 3_601 * 16);
        let at_once = given(57, 3, 0).after_loss(None, 0).unwrap();
        assert_eq!(at_once, given(57 + 40_000, 1 << 32, 16));
    }

    /// What a master that gives as fast as it may has given after `ran_ms`, with one second's worth
    /// on top when it did not just start.
    fn run(from: Numbers, ran_ms: u64, since_start: bool) -> Numbers {
        let worth_ms = ran_ms + if since_start { 0 } else { 1_000 };
        let attempts = worth_ms * u64::from(ATTEMPTS_PER_SECOND_MAX) / 1_000;
        Numbers {
            last_job: from.last_job + worth_ms * JOBS_PER_SECOND_MAX / 1_000,
            last_session: from.last_session + ran_ms,
            // The highest attempt of a task stands for the floor that a restore makes of it.
            attempt_floor: from.attempt_floor + u32::try_from(attempts).unwrap(),
        }
    }

    #[test]
    fn a_later_restore_of_any_backup_goes_on_behind_an_earlier_one() {
        let first_backup = given(10, 2, 1);
        let times_ms = [0, 1, 500, 999, 1_000, 1_001, 1_999, 86_400_000];
        for between_ms in times_ms {
            let second_backup = run(first_backup, between_ms, false);
            for lost_ms in times_ms {
                let restored = second_backup.after_loss(None, lost_ms).unwrap();
                // It is handed over when that second is over, runs, and is lost as well.
                let handed_over_ms = between_ms + Numbers::seconds_lost(lost_ms) * 1_000;
                for ran_ms in times_ms {
                    let reached = run(restored, ran_ms, true);
                    let now_ms = handed_over_ms + ran_ms;
                    for (backup, lost_ms) in
                        [(first_backup, now_ms), (second_backup, now_ms - between_ms)]
                    {
                        let again = backup.after_loss(None, lost_ms).unwrap();
                        let words = format!("{again:?} after {reached:?}, {lost_ms} ms later");
                        assert!(again.last_session > reached.last_session, "{words}");
                        assert!(again.attempt_floor >= reached.attempt_floor, "{words}");
                        assert!(again.last_job >= reached.last_job, "{words}");
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_used_up_are_told_and_never_begin_again() {
        let years = |years: u64| years * 365 * 86_400_000;
        assert!(given(1, 1, 0).after_loss(None, years(8)).is_some());
        assert!(given(1, 1, 0).after_loss(None, years(9)).is_none());
        assert!(given(1, 1, 0).after_loss(None, u64::MAX).is_none());
        assert!(given(i64::MAX as u64, 1, 0).after_loss(None, 0).is_none());
        assert!(given(1, u64::MAX, 0).after_loss(None, 0).is_none());
        assert!(given(1, 1, u32::MAX - 16).after_loss(None, 0).is_some());
        assert!(given(1, 1, u32::MAX - 15).after_loss(None, 0).is_none());
    }
}
