//! Who was heard when. Not durable: after a restart every worker gets one fresh lease, and their
//! reports settle the rest.

use std::collections::{BTreeMap, BTreeSet};

use cloudai_model::{AttemptId, Monotonic, TaskId, WorkerId};
use cloudai_scheduler::Standing;

use crate::breaker::Breaker;

/// What is known of a worker's life in this run of the master.
#[derive(Debug, Clone, Default)]
pub(crate) struct Liveness {
    /// When its last report was taken, or when this run began.
    pub(crate) heard_at: Monotonic,
    /// Whether it was heard lately.
    pub(crate) active: bool,
    /// Why it should get no new work, by its own words.
    pub(crate) degraded: Option<String>,
    /// What the ends of its attempts say of it.
    pub(crate) breaker: Breaker,
    /// What it should hold and did not name in its last full report.
    pub(crate) missed: BTreeMap<AttemptId, Missed>,
    /// Since when it is known in this run of the master that an attempt runs there.
    pub(crate) heard_running: BTreeMap<AttemptId, Monotonic>,
}

impl Liveness {
    /// Whether it takes work and nothing speaks against it.
    pub(crate) fn is_trusted(&self) -> bool {
        self.active && self.degraded.is_none() && self.breaker.is_closed()
    }

    /// Whether the worker takes work, and why not.
    pub(crate) fn standing(&self, now: Monotonic) -> Standing {
        match &self.degraded {
            _ if !self.active => Standing::Inactive,
            Some(why) => Standing::Degraded(why.clone()),
            None => self.breaker.find_words(now).map_or(Standing::Active, Standing::PutAside),
        }
    }
}

/// How long an attempt has not been named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missed {
    /// When it was missing first.
    pub(crate) since: Monotonic,
    /// In how many full reports in a row.
    pub(crate) reports: u8,
    /// When it was given last.
    pub(crate) given_at: Monotonic,
}

/// Moments at which something has to be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    due: BTreeSet<(Monotonic, Alarm)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// Has the worker been silent for too long?
    Worker(WorkerId),
    /// May what the last plan left be placed?
    Plan,
    /// May the task be tried again?
    Backoff(TaskId),
    /// May the worker that was put aside be tried, or tried again?
    Breaker(WorkerId),
    /// Does the trial still run?
    Trial(WorkerId, AttemptId),
}

impl Alarms {
    pub(crate) fn set(&mut self, at: Monotonic, alarm: Alarm) {
        self.due.insert((at, alarm));
    }

    /// These, but with each wait for another try as long as it was in `before`, where it has one.
    pub(crate) fn put_off(self, before: &Self) -> Self {
        let waits = |alarm: &Alarm| matches!(alarm, Alarm::Backoff(_));
        let before = before.due.iter().filter(|(_, alarm)| waits(alarm));
        let before: BTreeMap<&Alarm, Monotonic> = before.map(|(at, alarm)| (alarm, *at)).collect();
        let at = |at, alarm: &Alarm| before.get(alarm).copied().unwrap_or(at);
        Self { due: self.due.into_iter().map(|(due, alarm)| (at(due, &alarm), alarm)).collect() }
    }

    pub(crate) fn next(&self) -> Option<Monotonic> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The first alarm that is due, taken off.
    pub(crate) fn pop(&mut self, now: Monotonic) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, alarm)| alarm)
    }
}
