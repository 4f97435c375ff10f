//! The lines that an operator sees of the cluster's life, bounded: a burst of a hundred thousand
//! tasks is not a hundred thousand lines.

use std::time::{Duration, Instant};

use cloudai_master_core::Effect;
use cloudai_model::{Cause, Outcome, WorkerId, WorkerRecord};
use cloudai_scheduler::Standing;

/// Most lines about tasks in one window; what is more is counted.
const LINES_PER_WINDOW_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
const GIB: f64 = (1_u64 << 30) as f64;

#[derive(Debug, Default)]
pub(super) struct Console {
    window_began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Console {
    /// Tells of an effect, when it is one that an operator wants to hear of.
    pub(super) fn tell(&mut self, effect: &Effect) {
        match effect {
            Effect::WorkerRegistered(worker) => registered(worker),
            Effect::WorkerChanged { worker, standing } => changed(worker, standing),
            Effect::TaskEnded { attempt, worker: Some(worker), outcome } if self.may_speak() => {
                let (task, status) = (attempt.task, status_word(outcome));
                let why = why(outcome);
                tracing::info!(
                    "Task completion: {task} from worker {worker} [Status: {status}]{why}"
                );
            }
            Effect::AttemptLost { attempt, worker, cause, message } if self.may_speak() => {
                let worker = worker.as_ref().map_or("-", |worker| worker.as_str());
                tracing::warn!(
                    "Attempt {attempt} on worker {worker} is gone ({cause:?}: {message}); its \
                     task will be tried again"
                );
            }
            _ => {}
        }
    }

    fn may_speak(&mut self) -> bool {
        let now = Instant::now();
        if self.window_began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            if self.left_out > 0 {
                tracing::info!("… and {} more tasks ended", self.left_out);
            }
            *self = Self { window_began: Some(now), lines: 0, left_out: 0 };
        }
        self.lines += 1;
        if self.lines > LINES_PER_WINDOW_MAX {
            self.left_out += 1;
            return false;
        }
        true
    }
}

/// The status words of the wire contract.
fn status_word(outcome: &Outcome) -> &'static str {
    match outcome.cause {
        Cause::Exit(0) => "success",
        Cause::Cancelled => "cancelled",
        _ => "failed",
    }
}

/// What the status word leaves open: ` (oom)`, ` (image: no such image)`.
fn why(outcome: &Outcome) -> String {
    match (outcome.cause, outcome.message.as_str()) {
        (Cause::Exit(0) | Cause::Cancelled, _) => String::new(),
        (cause, "") => format!(" ({cause})"),
        (cause, message) => format!(" ({cause}: {message})"),
    }
}

fn changed(worker: &WorkerId, standing: &Standing) {
    match standing {
        Standing::Active => tracing::info!("Worker {worker} takes work"),
        Standing::Inactive => tracing::warn!("Worker {worker} is inactive: it is not heard"),
        Standing::Degraded(why) => {
            tracing::warn!("Worker {worker} is degraded and gets no new work: {why}");
        }
        Standing::PutAside(why) => tracing::warn!("Worker {worker} is put aside {why}"),
    }
}

fn registered(worker: &WorkerRecord) {
    let ip = worker.address.rsplit_once(':').map_or(worker.address.as_str(), |(host, _)| host);
    tracing::info!(
        "Worker registration: {} (IP: {ip}, CPU: {:.1}, Memory: {:.1} GB, Storage: {:.1} GB, \
         GPU: {:.1})",
        worker.id,
        worker.capacity.cpu_milli as f64 / 1000.0,
        worker.capacity.memory_bytes as f64 / GIB,
        worker.capacity.storage_bytes as f64 / GIB,
        worker.capacity.gpu_milli as f64 / 1000.0,
    );
}
