//! Why a task waits: nothing waits without a reason that has words.

use std::fmt;

use cloudai_model::{TaskId, WorkerId};
use cloudai_scheduler::{Refusal, Shape, refusal_of};

use crate::core::Core;

/// Why a live task is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The reason as a whole.
    pub wait: Wait,
    /// Each worker, by id, and why it does not take the task.
    pub workers: Vec<WorkerVerdict>,
}

/// A worker and why it does not take a task; `None` when it could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerVerdict {
    /// The worker.
    pub worker: WorkerId,
    /// The first need or constraint that does not fit.
    pub refusal: Option<Refusal>,
}

/// The reason for a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// It does not wait: a worker has it.
    Held {
        /// Which worker.
        worker: WorkerId,
        /// Whether its container started.
        running: bool,
    },
    /// Its job has as many tasks at once as its submitter allowed.
    AtOnceMax(u64),
    /// Its last attempt was lost or failed a moment ago.
    Backoff,
    /// There is no worker at all.
    NoWorkers,
    /// No worker that is there could ever take it.
    NeverFits,
    /// No worker has room now.
    NoRoom,
    /// The workers that could take it are not well.
    NoneWell,
    /// A worker has room, but nothing can be stored, and so nothing placed.
    StoreFull,
    /// A worker has room: it is placed by the next plan, or an agent keeps it.
    Next,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { worker, running: true } => write!(f, "running on {worker}"),
            Self::Held { worker, running: false } => {
                write!(f, "assigned to {worker}, which has not started it yet")
            }
            Self::AtOnceMax(max) => {
                write!(f, "its job may have {max} tasks at once, and has them")
            }
            Self::Backoff => f.write_str("its last attempt was lost; it is tried again shortly"),
            Self::NoWorkers => f.write_str("no workers registered yet"),
            Self::NeverFits => {
                f.write_str("no active worker could ever take it; it waits for one that can")
            }
            Self::NoRoom => f.write_str("no worker has room for it now"),
            Self::NoneWell => f.write_str("the workers that could take it get no new work now"),
            Self::StoreFull => f.write_str(
                "a worker has room, but the master's disk has none, and nothing new can be stored \
                 or placed; free space there, and it goes on by itself",
            ),
            Self::Next => f.write_str("a worker has room: it is placed next"),
        }
    }
}

impl Core {
    /// Why the task does not run; `None` when it is not live.
    pub fn explain(&self, task: TaskId) -> Option<Explanation> {
        let job = self.facts.jobs.get(&task.job)?;
        let position = job.shape.find_position(task)?;
        let live = job.live.get(&position);
        if live.is_none() && !job.fresh.contains(position) {
            return None;
        }
        if let Some(hold) = live.and_then(|live| live.find_hold()) {
            let running = matches!(
                live.map(|live| &live.state),
                Some(cloudai_model::LiveState::Running { .. })
            );
            let wait = Wait::Held { worker: hold.worker.clone(), running };
            return Some(Explanation { wait, workers: Vec::new() });
        }
        let shape = Shape::of(&job.spec);
        let verdict = |offer: cloudai_scheduler::Offer| WorkerVerdict {
            refusal: refusal_of(&shape, &offer),
            worker: offer.worker,
        };
        let workers: Vec<WorkerVerdict> = self.offers().into_iter().map(verdict).collect();
        let wait = if self.facts.queue.is_delayed(task.job, position) {
            Wait::Backoff
        } else if !self.facts.queue.is_ready(job, position) {
            Wait::AtOnceMax(job.shape.at_once_max())
        } else {
            match wait_of(&workers) {
                Wait::Next if self.store_full => Wait::StoreFull,
                wait => wait,
            }
        };
        Some(Explanation { wait, workers })
    }

    /// Whether the store has no room now; for what is said of what waits, and nothing else.
    pub const fn set_store_full(&mut self, is_full: bool) {
        self.store_full = is_full;
    }
}

fn wait_of(workers: &[WorkerVerdict]) -> Wait {
    if workers.is_empty() {
        return Wait::NoWorkers;
    }
    if workers.iter().any(|verdict| verdict.refusal.is_none()) {
        return Wait::Next;
    }
    let is_busy =
        |verdict: &WorkerVerdict| matches!(verdict.refusal, Some(Refusal::Busy(_) | Refusal::Full));
    let is_unwell = |verdict: &WorkerVerdict| {
        matches!(verdict.refusal, Some(Refusal::Degraded(_) | Refusal::PutAside(_)))
    };
    if workers.iter().any(is_busy) {
        Wait::NoRoom
    } else if workers.iter().any(is_unwell) {
        Wait::NoneWell
    } else {
        Wait::NeverFits
    }
}
