//! How a request waits: it looks, sleeps until something that concerns it moved, and looks again.
//! No polling; and a burst of changes is one look, so that a job of 100,000 tasks does not cost
//! whoever waits for it 100,000 queries.

use std::sync::Arc;
use std::time::Duration;

use cloudai_api::WAIT_MS_MAX;
use cloudai_failpoint::failpoint;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::Shared;
use super::errors::Failure;
use crate::heart::Change;

/// Most requests at once that last: waits, streams and downloads. Below the bound on connections,
/// so that they never keep everybody else out.
pub(super) const WATCHERS_MAX: usize = 256;

/// Least time between two looks at a task: it moves seldom, and its end is waited for.
pub(super) const TASK_PAUSE: Duration = Duration::from_millis(5);
/// Least time between two looks at a job, which moves with every task that it has.
pub(super) const JOB_PAUSE: Duration = Duration::from_millis(50);

/// A place among the requests that last; gives it back when dropped.
pub(super) fn place(app: &Shared) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(&app.watchers).try_acquire_owned().map_err(|_| {
        Failure::busy(format!("{WATCHERS_MAX} requests wait or stream already, as many as may"))
    })
}

/// What a watcher learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Something that concerns it, or it fell behind and cannot know.
    Look,
    /// There will be no more changes: the master is stopping.
    Stopped,
}

/// Waits for a change that concerns the caller.
pub(super) async fn moved(
    app: &Shared,
    changes: &mut Receiver<Change>,
    concerns: impl Fn(&Change) -> bool,
) -> Moved {
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = app.shutdown.cancelled() => return Moved::Stopped,
        };
        match change {
            Ok(change) if concerns(&change) => return Moved::Look,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return Moved::Look,
            Err(RecvError::Closed) => return Moved::Stopped,
        }
    }
}

/// Reads until what was read is over, or the time is up; then the answer is what there is. The
/// pause between two looks doubles up to `pause_max`: what ends soon is told at once.
pub(super) async fn until<T, R: Future<Output = Result<T, Failure>>>(
    app: &Shared,
    (wait_ms, pause_max): (Option<u64>, Duration),
    concerns: impl Fn(&Change) -> bool,
    read: impl Fn() -> R,
    over: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let Some(wait_ms) = wait_ms.filter(|ms| *ms > 0) else { return read().await };
    let _place = place(app)?;
    // Whoever waits for a task has the answer to its submit.
    failpoint!("master.wait.begun");
    let deadline = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
    let mut changes = app.heart.watch();
    let mut looked_at = None::<Instant>;
    let mut pause = TASK_PAUSE;
    loop {
        if let Some(at) = looked_at {
            tokio::time::sleep_until(deadline.min(at + pause)).await;
            pause = (pause * 2).min(pause_max);
            // What moved until now is seen by the look that follows.
            changes = changes.resubscribe();
        }
        looked_at = Some(Instant::now());
        let found = read().await?;
        if over(&found) || Instant::now() >= deadline {
            return Ok(found);
        }
        match tokio::time::timeout_at(deadline, moved(app, &mut changes, &concerns)).await {
            Ok(Moved::Look) => {}
            Ok(Moved::Stopped) => return Err(Failure::stopping()),
            Err(_) => return Ok(found),
        }
    }
}
