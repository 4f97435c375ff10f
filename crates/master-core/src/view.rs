//! What readers are shown of the live part: made by the heart between turns, after the commit.

use std::sync::Arc;

use cloudai_model::{
    AttemptId, JobId, LiveState, Now, Resources, TaskId, TaskSpec, WorkerId, WorkerRecord,
};
use cloudai_scheduler::{Offer, Shape, Standing, refusal_of};

use crate::core::Core;
use crate::explain::Wait;

/// Most shapes in a view.
pub(crate) const WAITING_MAX: usize = 100;
/// Most workers whose reason is named for a shape; `explain` names all.
pub(crate) const REASONS_MAX: usize = 5;

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Every worker, by id.
    pub workers: Vec<WorkerStatus>,
    /// Live tasks.
    pub tasks: LiveCounts,
    /// What waits, the shape with the oldest task first.
    pub waiting: Vec<WaitingView>,
    /// Reports that the fence refused since the master started.
    pub stale_reports: u64,
    /// Whether the store is taken to have no room: nothing new is accepted or placed.
    pub store_full: bool,
}

/// Live tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LiveCounts {
    /// Waiting.
    pub queued: u64,
    /// Placed, not started.
    pub assigned: u64,
    /// Started.
    pub running: u64,
}

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// As it registered.
    pub record: WorkerRecord,
    /// Whether it takes work, and why not.
    pub standing: Standing,
    /// Milliseconds since it was heard; since the master started, when it was not heard yet.
    pub heard_ms_ago: u64,
    /// The sum of what its attempts need.
    pub allocated: Resources,
    /// What is left.
    pub free: Resources,
    /// What it holds, by task.
    pub held: Vec<HeldView>,
}

/// An attempt on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldView {
    /// Which.
    pub attempt: AttemptId,
    /// Whether its container started.
    pub running: bool,
}

/// Tasks of one shape that could be placed now if there were room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingView {
    /// Their shape.
    pub shape: Arc<Shape>,
    /// How many.
    pub count: u64,
    /// The first in the queue.
    pub first: TaskId,
    /// Why no worker takes it, in words.
    pub reason: String,
}

/// A task that an agent may place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingTask {
    /// Which.
    pub task: TaskId,
    /// What it runs.
    pub spec: Arc<TaskSpec>,
}

impl Core {
    /// The cluster as it is now.
    pub fn view(&self, now: Now) -> ClusterView {
        let mut tasks = LiveCounts::default();
        let workers: Vec<WorkerStatus> =
            self.facts.workers.keys().map(|id| self.worker_status(now, id, &mut tasks)).collect();
        tasks.queued = self.facts.queue.queued_count;
        let waiting = self.waiting_views();
        let (stale_reports, store_full) = (self.stale_reports, self.store_full);
        ClusterView { workers, tasks, waiting, stale_reports, store_full }
    }

    fn worker_status(&self, now: Now, id: &WorkerId, tasks: &mut LiveCounts) -> WorkerStatus {
        let worker = &self.facts.workers[id];
        let mut held = Vec::with_capacity(worker.held.len());
        for task in &worker.held {
            let Some((attempt, state)) = self.find_current(*task) else { continue };
            let running = matches!(state, LiveState::Running { .. });
            *(if running { &mut tasks.running } else { &mut tasks.assigned }) += 1;
            held.push(HeldView { attempt, running });
        }
        let heard_at = self.liveness.get(id).map(|liveness| liveness.heard_at);
        WorkerStatus {
            record: worker.record.clone(),
            standing: self.standing_at(id, now.mono),
            heard_ms_ago: now.mono.ms_since(heard_at.unwrap_or_default()),
            allocated: worker.allocated,
            free: worker.free(),
            held,
        }
    }

    fn waiting_views(&self) -> Vec<WaitingView> {
        let offers = self.offers();
        let lines = self.facts.queue.ready_lines();
        let view = |(number, line): (u64, &crate::queue::Line)| {
            let first = self.facts.queue.first_of(number, 1, &self.facts.jobs);
            let (job, position) = *first.first()?;
            let reasons = offers.iter().filter_map(|offer| {
                refusal_of(&line.shape, offer).map(|why| format!("{}: {why}", offer.worker))
            });
            let reasons: Vec<String> = reasons.take(REASONS_MAX).collect();
            let fits = |offer: &Offer| refusal_of(&line.shape, offer).is_none();
            Some(WaitingView {
                shape: Arc::clone(&line.shape),
                count: line.ready_count,
                first: self.facts.jobs[&job].shape.task_id(job, position),
                reason: if offers.is_empty() {
                    Wait::NoWorkers.to_string()
                } else if self.store_full && offers.iter().any(fits) {
                    Wait::StoreFull.to_string()
                } else {
                    reasons.join("; ")
                },
            })
        };
        lines.into_iter().take(WAITING_MAX).filter_map(view).collect()
    }

    /// Waiting tasks in queue order, at most `count`: what an agent sees.
    pub fn pending(&self, count: usize) -> Vec<PendingTask> {
        let of_job = |(job, position): (JobId, u32)| {
            let record = &self.facts.jobs[&job];
            let task = record.shape.task_id(job, position);
            PendingTask { task, spec: Arc::clone(&record.spec) }
        };
        self.facts.queue.pending(count, &self.facts.jobs).into_iter().map(of_job).collect()
    }
}
