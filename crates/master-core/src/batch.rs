//! What a step decided: facts to store, then effects to carry out, in this order only.

use std::sync::Arc;

use cloudai_model::{
    AttemptId, Event, JobId, Journal, LossCause, Outcome, Session, StopReason, TaskId, TaskSpec,
    WorkerId, WorkerRecord,
};
use cloudai_scheduler::Standing;

use crate::command::{Answer, Token};

/// What to do about new facts. Never stored; safe to lose and to double.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell whoever waits.
    Answer {
        /// Who waits.
        to: Token,
        /// What it came to.
        answer: Answer,
    },
    /// Tell a worker.
    Send {
        /// Which.
        worker: WorkerId,
        /// Under which registration.
        session: Session,
        /// What.
        order: Order,
    },
    /// Tell whoever watches that a task moved.
    TaskChanged(TaskId),
    /// Tell the operator and whoever watches that a task ended.
    TaskEnded {
        /// With which attempt.
        attempt: AttemptId,
        /// The worker that held it; `None` when the task was waiting.
        worker: Option<WorkerId>,
        /// How.
        outcome: Outcome,
    },
    /// Tell the operator and whoever watches that a task will be tried again.
    AttemptLost {
        /// The attempt that is gone.
        attempt: AttemptId,
        /// The worker that held it.
        worker: Option<WorkerId>,
        /// Why it is gone.
        cause: LossCause,
        /// What was said about it.
        message: String,
    },
    /// Tell the operator and whoever watches that a worker process registered.
    WorkerRegistered(WorkerRecord),
    /// Tell whoever watches that many tasks of a job moved at once.
    JobChanged(JobId),
    /// Tell the operator and whoever watches that a worker takes work again, or does not any more.
    WorkerChanged {
        /// Which.
        worker: WorkerId,
        /// As it is now.
        standing: Standing,
    },
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Run this attempt; the same again is a no-op.
    Assign {
        /// Which.
        attempt: AttemptId,
        /// What it runs.
        spec: Arc<TaskSpec>,
    },
    /// Stop this attempt and report its end.
    Stop {
        /// Which.
        attempt: AttemptId,
        /// Why.
        reason: StopReason,
    },
    /// Its end is stored: let go of it.
    Forget {
        /// Which.
        attempt: AttemptId,
    },
    /// The report of this number was heard; leases run anew from when it was sent. What the store
    /// had no room for comes again with the next full report.
    Acknowledge {
        /// The report's number.
        sequence: u64,
    },
}

/// The result of one or more steps, not yet visible to anyone.
#[derive(Debug, Default)]
#[must_use = "a batch that is not committed is lost, and the core is ahead of its store"]
pub struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
}

impl Batch {
    /// Adds what a later step decided.
    pub fn append(&mut self, mut later: Self) {
        self.events.append(&mut later.events);
        self.effects.append(&mut later.effects);
    }

    /// What will be stored.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Whether there is nothing to store and nothing to do.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.effects.is_empty()
    }

    /// Stores the events and only then gives out the effects. When it fails, the core is ahead of
    /// the store and must be thrown away: load again and restore.
    pub fn commit<J: Journal + ?Sized>(self, journal: &mut J) -> Result<Vec<Effect>, J::Error> {
        if !self.events.is_empty() {
            journal.commit(&self.events)?;
        }
        Ok(self.effects)
    }
}

#[cfg(test)]
mod tests {
    use cloudai_model::Timestamp;

    use super::*;

    fn batch(events: usize, effects: usize) -> Batch {
        let event = Event::CancelRequested { task: TaskId::single(1), at: Timestamp(1) };
        let effect = Effect::TaskChanged(TaskId::single(1));
        Batch { events: vec![event; events], effects: vec![effect; effects] }
    }

    /// Remembers the length of each commit, or refuses it.
    struct Lengths(Vec<usize>, bool);

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    impl Journal for Lengths {
        type Error = No;

        fn commit(&mut self, events: &[Event]) -> Result<(), No> {
            self.0.push(events.len());
            if self.1 { Ok(()) } else { Err(No) }
        }
    }

    #[test]
    fn a_batch_is_empty_when_it_has_neither_events_nor_effects() {
        for (events, effects) in [(0, 0), (0, 1), (1, 0), (2, 3)] {
            let batch = batch(events, effects);
            assert_eq!(batch.events().len(), events);
            assert_eq!(batch.is_empty(), events + effects == 0);
        }
    }

    #[test]
    fn effects_come_out_only_when_their_events_are_stored() {
        let mut good = Lengths(Vec::new(), true);
        let mut both = batch(1, 1);
        both.append(batch(1, 1));
        assert_eq!(both.commit(&mut good).unwrap().len(), 2);
        assert_eq!(good.0, [2]);
        // Nothing to store is no commit.
        assert_eq!(batch(0, 1).commit(&mut good).unwrap().len(), 1);
        assert_eq!(good.0, [2]);
        let mut bad = Lengths(Vec::new(), false);
        assert!(batch(1, 1).commit(&mut bad).is_err());
    }
}
