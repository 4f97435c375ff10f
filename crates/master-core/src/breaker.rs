//! A worker on which everything fails is put aside, so that it does not eat a queue. Pure, and not
//! durable: a restarted master begins anew, and so does a restarted worker. Says only what the ends
//! of attempts say of their worker; it must never end or move an attempt. Used by
//! `steps/finish.rs` (what ended), `steps/place.rs` (what is tried) and `steps/tick.rs`.
//!
//! After [`bounds::BREAKER_FAILURES`] failures in a row, without a success between, the worker is
//! put aside for a while; then it gets one attempt at a time, on trial. One that works closes the
//! breaker, at its end or when it has run for [`bounds::QUICK_EXIT_MS`]; one that fails puts the
//! worker aside for twice as long. One that does not start for [`bounds::TRIAL_MS_MAX`] makes room
//! for another. A worker is put aside only as long as another one takes work (`Core::standing_at`).

use std::collections::BTreeSet;

use cloudai_model::{AttemptId, JobId, Monotonic};

use crate::core::bounds;

/// Longest words about the last failure, in bytes; the rest is cut off.
const WORDS_LEN_MAX: usize = 256;

/// What the end of an attempt says of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The worker ran it: it succeeded, or went on for a while.
    Works,
    /// The worker's engine or disk failed.
    Infra,
    /// It failed as soon as it started. The task may be to blame as well: such failures count only
    /// when they come from [`bounds::QUICK_EXIT_JOBS`] jobs, so that one bad array never puts a
    /// good worker aside.
    QuickExit(JobId),
    /// Nothing.
    Silent,
}

/// What a caller has to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The worker is put aside until then.
    Aside(Monotonic),
    /// The worker is trusted again.
    Back,
}

/// Failures since the last success.
#[derive(Debug, Clone, Default)]
struct Streak {
    infra: u32,
    exits: u32,
    /// Whose exits; no more are kept than are asked for.
    jobs: BTreeSet<JobId>,
    /// The last failure, in words.
    last: String,
    /// When it was counted.
    counted_at: Monotonic,
}

impl Streak {
    /// Whether quick exits are laid to the worker.
    fn blames_exits(&self) -> bool {
        self.jobs.len() >= bounds::QUICK_EXIT_JOBS
    }

    /// Failures that are laid to the worker.
    fn count(&self) -> u32 {
        let exits = if self.blames_exits() { self.exits } else { 0 };
        self.infra.saturating_add(exits)
    }

    /// Takes a failure; whether it is laid to the worker.
    fn add(&mut self, verdict: Verdict, words: &str) -> bool {
        let to_blame = match verdict {
            Verdict::Works | Verdict::Silent => return false,
            Verdict::Infra => {
                self.infra = self.infra.saturating_add(1);
                true
            }
            Verdict::QuickExit(job) => {
                self.exits = self.exits.saturating_add(1);
                if !self.blames_exits() {
                    self.jobs.insert(job);
                }
                self.blames_exits()
            }
        };
        words[..words.floor_char_boundary(WORDS_LEN_MAX)].clone_into(&mut self.last);
        to_blame
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    /// All is well.
    #[default]
    Closed,
    /// Put aside until then.
    Open { until: Monotonic },
    /// One attempt at a time.
    HalfOpen {
        /// What was given since and has not ended: more than one when there is no better worker.
        trials: BTreeSet<AttemptId>,
        /// The last one that was given, and until when it is waited for.
        last: Option<(AttemptId, Monotonic)>,
    },
}

/// What is thought of one worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Breaker {
    state: State,
    streak: Streak,
    /// How often in a row it was put aside.
    trips: u32,
}

impl Breaker {
    /// Whether anything speaks against the worker.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the worker gets one attempt at a time.
    pub(crate) const fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen { .. })
    }

    /// Whether an attempt was given on trial and has not ended.
    pub(crate) fn is_trial(&self, attempt: AttemptId) -> bool {
        matches!(&self.state, State::HalfOpen { trials, .. } if trials.contains(&attempt))
    }

    /// An attempt was placed; until when it is waited for, when it is a trial.
    pub(crate) fn placed(&mut self, now: Monotonic, attempt: AttemptId) -> Option<Monotonic> {
        let State::HalfOpen { trials, last } = &mut self.state else { return None };
        let until = now.plus_ms(bounds::TRIAL_MS_MAX);
        trials.insert(attempt);
        *last = Some((attempt, until));
        Some(until)
    }

    /// The worker does not hold an attempt any more, whatever it came to.
    pub(crate) fn gone(&mut self, attempt: AttemptId) {
        if let State::HalfOpen { trials, .. } = &mut self.state {
            trials.remove(&attempt);
        }
    }

    /// An attempt ended, or goes on for long enough. While the worker is put aside or on trial,
    /// nothing counts but trials: what began before says nothing of the worker as it is now.
    pub(crate) fn ended(
        &mut self,
        now: Monotonic,
        attempt: AttemptId,
        verdict: Verdict,
        words: &str,
    ) -> Option<Turned> {
        match &self.state {
            State::Closed if verdict == Verdict::Works => self.streak = Streak::default(),
            State::Closed => {
                self.streak.add(verdict, words);
                self.streak.counted_at = now;
                if self.streak.count() >= bounds::BREAKER_FAILURES {
                    return Some(self.open(now));
                }
            }
            State::HalfOpen { trials, .. } if trials.contains(&attempt) => {
                if verdict == Verdict::Works {
                    *self = Self::default();
                    return Some(Turned::Back);
                }
                if self.streak.add(verdict, words) {
                    return Some(self.open(now));
                }
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        None
    }

    fn open(&mut self, now: Monotonic) -> Turned {
        let ms = bounds::BREAKER_MS_MIN << self.trips.min(16);
        let until = now.plus_ms(ms.min(bounds::BREAKER_MS_MAX));
        self.trips = self.trips.saturating_add(1);
        self.state = State::Open { until };
        Turned::Aside(until)
    }

    /// Time passed; whether the worker may be tried from now on.
    pub(crate) fn tick(&mut self, now: Monotonic) -> bool {
        match &self.state {
            State::Open { until } if *until <= now => {
                self.state = State::HalfOpen { trials: BTreeSet::new(), last: None };
                true
            }
            State::HalfOpen { last: Some((_, until)), .. } => *until <= now,
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// The turn at `turn` was not kept. What it counted comes again and is not counted twice; a
    /// worker that it put aside, or took back, failed or worked all the same. Trials that it gave
    /// never were.
    pub(crate) fn take_back(&mut self, turn: Monotonic, held: &BTreeSet<AttemptId>) {
        match &mut self.state {
            State::Closed if self.streak.counted_at >= turn => self.streak = Streak::default(),
            State::HalfOpen { trials, .. } => trials.retain(|trial| held.contains(trial)),
            State::Closed | State::Open { .. } => {}
        }
    }

    /// When [`Breaker::tick`] has something to do.
    pub(crate) fn next_look(&self) -> Option<Monotonic> {
        match &self.state {
            State::Open { until } | State::HalfOpen { last: Some((_, until)), .. } => Some(*until),
            State::Closed | State::HalfOpen { last: None, .. } => None,
        }
    }

    /// Why the worker gets nothing now, in words; `None` when it does.
    pub(crate) fn find_words(&self, now: Monotonic) -> Option<String> {
        let begin = match &self.state {
            State::Open { until } => {
                let seconds = until.ms_since(now).div_ceil(1000);
                format!("for {seconds} s more, then tried with one task,")
            }
            State::HalfOpen { trials, last: Some((trial, until)) }
                if *until > now && trials.contains(trial) =>
            {
                format!("while {trial} is tried")
            }
            State::Closed | State::HalfOpen { .. } => return None,
        };
        let Streak { last, .. } = &self.streak;
        Some(format!("{begin} after {} failures in a row; last: {last}", self.streak.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(text: &str) -> AttemptId {
        text.parse().unwrap()
    }

    fn infra(breaker: &mut Breaker, at: u64, id: &str) -> Option<Turned> {
        breaker.ended(Monotonic(at), attempt(id), Verdict::Infra, "the disk is full")
    }

    fn exit(breaker: &mut Breaker, job: u64) -> Option<Turned> {
        let attempt = attempt(&format!("task-{job}-a1"));
        breaker.ended(Monotonic(0), attempt, Verdict::QuickExit(JobId(job)), "exit(1)")
    }

    fn opened(at: u64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..bounds::BREAKER_FAILURES {
            assert_eq!(infra(&mut breaker, at, "task-1-a1"), None);
        }
        let until = Monotonic(at + bounds::BREAKER_MS_MIN);
        assert_eq!(infra(&mut breaker, at, "task-1-a1"), Some(Turned::Aside(until)));
        breaker
    }

    #[test]
    fn so_many_failures_in_a_row_open_it_and_not_one_less() {
        let breaker = opened(7);
        let words = breaker.find_words(Monotonic(6_008)).unwrap();
        assert_eq!(
            words,
            "for 24 s more, then tried with one task, after 5 failures in a row; last: the disk is full"
        );
    }

    #[test]
    fn a_success_between_begins_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            for _ in 1..bounds::BREAKER_FAILURES {
                assert_eq!(infra(&mut breaker, 0, "task-1-a1"), None);
            }
            let turned = breaker.ended(Monotonic(0), attempt("task-2-a1"), Verdict::Works, "");
            assert_eq!(turned, None);
        }
    }

    #[test]
    fn an_end_that_says_nothing_changes_nothing() {
        let mut breaker = Breaker::default();
        for turn in 1..=bounds::BREAKER_FAILURES {
            let silent = breaker.ended(Monotonic(0), attempt("task-9-a1"), Verdict::Silent, "");
            assert_eq!(silent, None);
            let turned = infra(&mut breaker, 0, "task-1-a1");
            assert_eq!(turned.is_some(), turn == bounds::BREAKER_FAILURES);
        }
    }

    #[test]
    fn quick_exits_count_only_when_they_come_from_several_jobs() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(exit(&mut breaker, 1), None);
            assert_eq!(exit(&mut breaker, 2), None);
        }
        assert!(exit(&mut breaker, 3).is_some());
        let mut breaker = Breaker::default();
        for (job, trips) in [(1, false), (2, false), (3, false), (4, false), (5, true)] {
            assert_eq!(exit(&mut breaker, job).is_some(), trips, "{job}");
        }
        assert!(breaker.streak.jobs.len() <= bounds::QUICK_EXIT_JOBS);
    }

    #[test]
    fn after_its_time_it_takes_one_attempt_on_trial_and_a_success_closes_it() {
        let mut breaker = opened(0);
        assert!(!breaker.tick(Monotonic(bounds::BREAKER_MS_MIN - 1)));
        assert!(breaker.tick(Monotonic(bounds::BREAKER_MS_MIN)) && breaker.is_half_open());
        assert!(!breaker.tick(Monotonic(bounds::BREAKER_MS_MIN)));
        let now = Monotonic(bounds::BREAKER_MS_MIN);
        assert_eq!(breaker.find_words(now), None);
        breaker.placed(now, attempt("task-2-a1"));
        let words = breaker.find_words(now).unwrap();
        assert!(words.starts_with("while task-2-a1 is tried after 5 failures"), "{words}");
        // What began before it was put aside says nothing.
        assert_eq!(infra(&mut breaker, 0, "task-1-a1"), None);
        let old = breaker.ended(Monotonic(0), attempt("task-1-a1"), Verdict::Works, "");
        assert_eq!(old, None);
        let turned = breaker.ended(Monotonic(0), attempt("task-2-a1"), Verdict::Works, "");
        assert_eq!(turned, Some(Turned::Back));
        assert!(breaker.is_closed());
    }

    #[test]
    fn each_failure_on_trial_doubles_the_time_up_to_its_bound() {
        let (mut breaker, mut now) = (opened(0), bounds::BREAKER_MS_MIN);
        let mut times = Vec::new();
        for _ in 0..20 {
            assert!(breaker.tick(Monotonic(now)));
            breaker.placed(Monotonic(now), attempt("task-2-a1"));
            let Some(Turned::Aside(until)) = infra(&mut breaker, now, "task-2-a1") else {
                panic!("{breaker:?}")
            };
            times.push(until.0 - now);
            now = until.0;
        }
        assert_eq!(times[..5], [60_000, 120_000, 240_000, 480_000, bounds::BREAKER_MS_MAX]);
        assert_eq!(times[19], bounds::BREAKER_MS_MAX);
    }

    #[test]
    fn a_trial_that_says_nothing_leaves_it_on_trial() {
        let mut breaker = opened(0);
        breaker.tick(Monotonic(bounds::BREAKER_MS_MIN));
        breaker.placed(Monotonic(0), attempt("task-2-a1"));
        assert_eq!(exit(&mut breaker, 2), None);
        assert!(breaker.is_half_open());
        breaker.placed(Monotonic(0), attempt("task-3-a1"));
        assert!(infra(&mut breaker, 0, "task-3-a1").is_some());
    }

    #[test]
    fn words_about_a_failure_are_cut_at_their_bound() {
        let mut streak = Streak::default();
        streak.add(Verdict::Infra, &"ü".repeat(WORDS_LEN_MAX));
        assert_eq!(streak.last.len(), WORDS_LEN_MAX);
    }
}
