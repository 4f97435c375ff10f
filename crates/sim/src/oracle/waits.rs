//! Why tasks wait. The core names the reason; the judge holds each against books of its own: what
//! the history has in each worker's hands, what the workers said, and when a task was lost. Taken
//! on trust are only the choices that no promise speaks of: which of those with room gets a task,
//! and how long a worker is put aside, once it failed often enough for that.

use std::collections::{BTreeMap, BTreeSet};

use cloudai_master_core::{Command, Core, Wait, bounds};
use cloudai_model::{
    AttemptId, AttemptReport, Cause, Event, JobId, LossCause, ReportWhat, Resources, TaskId,
    WorkerId,
};
use cloudai_scheduler::Refusal;

use super::reference::{Job, Place, Reference, Task};

/// How long after a word of it a worker must count as active, in milliseconds of true time: less
/// than the core's own bound by more than two clocks differ.
const ACTIVE_MS: u64 = bounds::INACTIVE_AFTER_MS - bounds::INACTIVE_AFTER_MS / 50;

/// What the judge knows of waiting.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    health: BTreeMap<WorkerId, Health>,
    /// When an attempt of a task was lost last.
    lost_at_ms: BTreeMap<TaskId, u64>,
    /// When the master took up what its store had, last.
    began_ms: u64,
}

/// What a worker said to the present master process.
#[derive(Debug, Default)]
struct Health {
    /// When it was heard last, and since then no end of its session.
    heard_at_ms: Option<u64>,
    /// Whether it says that it is unwell; `None` while that is not stored.
    is_degraded: Option<bool>,
    /// Attempts that failed there.
    failed: BTreeSet<AttemptId>,
}

/// A word of a worker that may have been taken.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    worker: WorkerId,
    is_degraded: Option<bool>,
}

/// What the history has in the hands of workers.
#[derive(Default)]
struct Held {
    by_worker: BTreeMap<WorkerId, (Resources, usize)>,
    by_job: BTreeMap<JobId, u64>,
}

impl Waits {
    /// The master has a memory that is made anew from the store.
    pub(crate) fn begins(&mut self, now_ms: u64) {
        self.began_ms = now_ms;
    }

    /// A new master process knows nothing of the workers.
    pub(crate) fn forget_workers(&mut self) {
        self.health.clear();
    }

    /// The sessions are over until the workers say hello again.
    pub(crate) fn sessions_end(&mut self) {
        self.health.values_mut().for_each(|health| health.heard_at_ms = None);
    }

    /// The master takes a message; what a worker says in it, if it is one.
    pub(crate) fn taken(&mut self, command: &Command) -> Option<Word> {
        let (worker, ends, is_degraded) = match command {
            Command::Hello(hello) => {
                let ends = hello.held.as_deref().unwrap_or_default().iter().collect();
                (&hello.id, ends, Some(hello.degraded.is_some()))
            }
            Command::Report { worker, changes, full, .. } => {
                let held = full.iter().flat_map(|full| &full.held);
                let is_degraded = full.as_ref().map(|full| full.degraded.is_some());
                (worker, changes.iter().chain(held).collect::<Vec<_>>(), is_degraded)
            }
            Command::Goodbye { worker, .. } => {
                self.health.entry(worker.clone()).or_default().heard_at_ms = None;
                return None;
            }
            _ => return None,
        };
        let health = self.health.entry(worker.clone()).or_default();
        let failed = ends.into_iter().filter(|end| has_failed(end));
        health.failed.extend(failed.map(|end| end.attempt));
        if is_degraded.is_some() && is_degraded != health.is_degraded {
            health.is_degraded = None;
        }
        Some(Word { worker: worker.clone(), is_degraded })
    }

    /// The master took that word.
    pub(crate) fn heard(&mut self, now_ms: u64, word: Word) {
        let health = self.health.entry(word.worker).or_default();
        health.heard_at_ms = Some(now_ms);
        health.is_degraded = word.is_degraded.or(health.is_degraded);
    }

    /// An event is stored of a task that this worker held.
    pub(crate) fn stored(&mut self, now_ms: u64, event: &Event, worker: Option<&WorkerId>) {
        let failed = match event {
            Event::AttemptLost { attempt, cause, .. } => {
                self.lost_at_ms.insert(attempt.task, now_ms);
                (*cause == LossCause::Infra).then_some(*attempt)
            }
            Event::TaskFinished { attempt, outcome, .. } => {
                self.lost_at_ms.remove(&attempt.task);
                (outcome.cause == Cause::Infra).then_some(*attempt)
            }
            _ => return,
        };
        let Some(worker) = worker else { return };
        if let Some(attempt) = failed {
            self.health.entry(worker.clone()).or_default().failed.insert(attempt);
        }
    }

    /// Every task that waits has a reason, and the reason is true.
    pub(crate) fn check(
        &self,
        core: &Core,
        reference: &Reference,
        now_ms: u64,
    ) -> Result<(), String> {
        let held = Held::count(reference)?;
        for (id, job) in &reference.jobs {
            let waits = |(_, task): &(&u32, &Task)| task.place == Place::Waiting;
            let mut saw_fresh = false;
            for (position, task) in job.tasks.iter().filter(waits) {
                // Of those that were never tried, one stands for all.
                if task.attempts() == 0 && std::mem::replace(&mut saw_fresh, true) {
                    continue;
                }
                let task_id = job.shape.task_id(*id, *position);
                self.check_task(core, reference, now_ms, &held, job, (task_id, task))?;
            }
        }
        Ok(())
    }

    fn check_task(
        &self,
        core: &Core,
        reference: &Reference,
        now_ms: u64,
        held: &Held,
        job: &Job,
        (id, task): (TaskId, &Task),
    ) -> Result<(), String> {
        let Some(reason) = core.explain(id) else {
            return Err(format!("every waiting task has a reason: {id} has none"));
        };
        let is_true = match &reason.wait {
            Wait::Next => {
                return Err(format!(
                    "a task that a worker has room for is placed: {id} waits and nothing will \
                     wake it"
                ));
            }
            Wait::Held { .. } | Wait::StoreFull => false,
            Wait::AtOnceMax(max) => held.by_job.get(&id.job).copied().unwrap_or_default() >= *max,
            Wait::Backoff => self.is_backing_off(now_ms, id, task),
            Wait::NoWorkers => reference.workers().next().is_none(),
            Wait::NeverFits | Wait::NoRoom | Wait::NoneWell => {
                let named = reason.workers.iter().map(|verdict| &verdict.worker);
                let refuses = |worker: &WorkerId, refusal: Option<&Refusal>| {
                    refusal.is_some_and(|refusal| {
                        self.refuses(now_ms, reference, held, job, worker, refusal)
                    })
                };
                let wrong = reason
                    .workers
                    .iter()
                    .find(|verdict| !refuses(&verdict.worker, verdict.refusal.as_ref()));
                if let Some(verdict) = wrong {
                    return Err(format!(
                        "the reason why a task waits is true: {id} is not placed on {}: {:?}",
                        verdict.worker, verdict.refusal
                    ));
                }
                named.eq(reference.workers())
            }
        };
        if is_true {
            return Ok(());
        }
        Err(format!("the reason why a task waits is true: that of {id} is not: {}", reason.wait))
    }

    /// Whether the wait for the next try may last still.
    fn is_backing_off(&self, now_ms: u64, id: TaskId, task: &Task) -> bool {
        let since_ms = self.lost_at_ms.get(&id).copied().unwrap_or_default().max(self.began_ms);
        let doubled = task.attempts().saturating_sub(1).min(16);
        let wait_ms = (bounds::BACKOFF_MS_MIN << doubled).min(bounds::BACKOFF_MS_MAX);
        // A clock may be slow, and shows whole milliseconds.
        task.attempts() > 0 && now_ms <= since_ms + wait_ms + wait_ms / 50 + 2
    }

    /// Whether a worker has this reason not to take a task of this job.
    fn refuses(
        &self,
        now_ms: u64,
        reference: &Reference,
        held: &Held,
        job: &Job,
        worker: &WorkerId,
        refusal: &Refusal,
    ) -> bool {
        let health = self.health.get(worker);
        let failures = health.map_or(0, |health| health.failed.len());
        let has_failed = failures >= bounds::BREAKER_FAILURES as usize;
        let (needs, capacity) = (job.spec.needs, reference.capacity(worker));
        let (used, count) = held.by_worker.get(worker).copied().unwrap_or_default();
        match refusal {
            Refusal::NotTarget(target) => {
                job.spec.target.as_ref() == Some(target) && target != worker
            }
            Refusal::Inactive => health
                .and_then(|health| health.heard_at_ms)
                .is_none_or(|at_ms| now_ms > at_ms + ACTIVE_MS),
            // No simulated task asks for one.
            Refusal::NoVolume(_) => false,
            Refusal::TooSmall(_) => needs.find_lack(capacity).is_some(),
            Refusal::Degraded(_) => health.is_none_or(|health| health.is_degraded != Some(false)),
            Refusal::PutAside(_) => has_failed,
            Refusal::Busy(_) => {
                needs.checked_add(used).is_none_or(|sum| sum.find_lack(capacity).is_some())
            }
            Refusal::Full => count >= bounds::ATTEMPTS_PER_WORKER_MAX || has_failed,
        }
    }
}

impl Held {
    fn count(reference: &Reference) -> Result<Self, String> {
        let mut held = Self::default();
        for (id, job) in &reference.jobs {
            for task in job.tasks.values() {
                let Place::Held { worker, .. } = &task.place else { continue };
                *held.by_job.entry(*id).or_default() += 1;
                let (sum, count) = held.by_worker.entry(worker.clone()).or_default();
                *sum = sum.checked_add(job.spec.needs).ok_or("a sum of needs overflows")?;
                *count += 1;
            }
        }
        Ok(held)
    }
}

/// Whether this says that an attempt ended, and not well.
fn has_failed(report: &AttemptReport) -> bool {
    matches!(&report.what, ReportWhat::Ended { outcome, .. } if outcome.cause != Cause::Exit(0))
}
