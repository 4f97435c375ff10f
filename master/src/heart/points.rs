//! Where a test may kill this master around a commit: before and after each kind of fact becomes
//! durable, and before and after each order leaves. In a build that is shipped this is a plain
//! commit.

use cloudai_database::{Store, StoreError};
use cloudai_failpoint::{ENABLED, failpoint};
use cloudai_model::{Event, Journal};

/// The store, with a point before and after what each fact makes of it.
pub(super) struct Watched<'a>(pub(super) &'a mut dyn Store);

impl Journal for Watched<'_> {
    type Error = StoreError;

    fn commit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if ENABLED {
            events.iter().for_each(before_commit);
        }
        self.0.commit(events)?;
        if ENABLED {
            events.iter().for_each(after_commit);
        }
        Ok(())
    }
}

#[allow(clippy::match_same_arms, reason = "in a build that is shipped each point is nothing")]
fn before_commit(event: &Event) {
    match event {
        Event::WorkerRegistered { .. } => failpoint!("master.registered.before_commit"),
        Event::JobSubmitted { .. } => failpoint!("master.submitted.before_commit"),
        Event::AttemptPlaced { .. } => failpoint!("master.placed.before_commit"),
        Event::AttemptStarted { .. } => failpoint!("master.started.before_commit"),
        Event::AttemptLost { .. } => failpoint!("master.lost.before_commit"),
        Event::CancelRequested { .. } => failpoint!("master.cancel.before_commit"),
        Event::FreshCancelled { .. } => failpoint!("master.fresh_cancelled.before_commit"),
        Event::TaskFinished { .. } => failpoint!("master.finished.before_commit"),
        Event::AttemptAdopted { .. } => failpoint!("master.adopted.before_commit"),
    }
}

#[allow(clippy::match_same_arms, reason = "in a build that is shipped each point is nothing")]
fn after_commit(event: &Event) {
    match event {
        Event::WorkerRegistered { .. } => failpoint!("master.registered.after_commit"),
        Event::JobSubmitted { .. } => failpoint!("master.submitted.after_commit"),
        Event::AttemptPlaced { .. } => failpoint!("master.placed.after_commit"),
        Event::AttemptStarted { .. } => failpoint!("master.started.after_commit"),
        Event::AttemptLost { .. } => failpoint!("master.lost.after_commit"),
        Event::CancelRequested { .. } => failpoint!("master.cancel.after_commit"),
        Event::FreshCancelled { .. } => failpoint!("master.fresh_cancelled.after_commit"),
        Event::TaskFinished { .. } => failpoint!("master.finished.after_commit"),
        Event::AttemptAdopted { .. } => failpoint!("master.adopted.after_commit"),
    }
}
