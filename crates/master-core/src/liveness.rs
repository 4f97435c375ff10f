//! Who was heard when. Not durable: after a restart every worker gets one fresh lease, and their
//! reports settle the rest.

use std::collections::{BTreeMap, BTreeSet};

use cloudai_model::{Monotonic, TaskId, WorkerId};

/// What is known of a worker's life in this run of the master.
#[derive(Debug, Clone, Default)]
pub(crate) struct Liveness {
    /// When its last report was taken, or when this run began.
    pub(crate) heard_at: Monotonic,
    /// Whether it takes work.
    pub(crate) active: bool,
    /// Full reports in a row that did not name a task which runs there, by task. Only for unary
    /// workers, whose report of the end may be on its way by another call.
    pub(crate) missed: BTreeMap<TaskId, u8>,
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
    /// May the task be tried again?
    Backoff(TaskId),
}

impl Alarms {
    pub(crate) fn set(&mut self, at: Monotonic, alarm: Alarm) {
        self.due.insert((at, alarm));
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
