//! What the stored history allows: a model of tasks and workers that is simpler than the core. It
//! takes each event as it was stored and says in words what may not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::client::is_about;
use cloudai_master_core::{CancelTarget, bounds};
use cloudai_model::{
    AttemptId, Cause, Event, Hold, JobId, JobShape, LiveState, LossCause, Resources, Session,
    Snapshot, TaskId, TaskSpec, WorkerId,
};

/// The history so far.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// What each machine really has.
    machines: BTreeMap<WorkerId, Resources>,
    sessions: BTreeMap<WorkerId, Session>,
    /// Every placement that was ever stored.
    placed: BTreeMap<AttemptId, WorkerId>,
    /// What clients asked the master to cancel.
    unwanted_jobs: BTreeSet<JobId>,
    unwanted_tasks: BTreeSet<TaskId>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
}

/// A job and all of its tasks.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) shape: JobShape,
    pub(crate) tasks: BTreeMap<u32, Task>,
}

/// One task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Task {
    /// How many attempts were placed so far.
    attempts: u32,
    pub(crate) place: Place,
    pub(crate) cancel_requested: bool,
    failures: u32,
    crashes: u32,
    infra: u32,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Place {
    #[default]
    Waiting,
    Held {
        worker: WorkerId,
        session: Session,
        started: bool,
    },
    Ended(Cause),
}

impl Task {
    /// How many attempts were placed so far.
    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    fn is_on(&self, id: &WorkerId) -> bool {
        matches!(&self.place, Place::Held { worker, .. } if worker == id)
    }
}

impl Reference {
    pub(crate) fn new(machines: BTreeMap<WorkerId, Resources>) -> Self {
        Self { machines, ..Self::default() }
    }

    pub(crate) fn find(&self, task: TaskId) -> Option<&Task> {
        self.jobs.get(&task.job)?.tasks.get(&task.position())
    }

    /// Whether the history has this attempt in the hands of this worker.
    pub(crate) fn is_held(&self, attempt: AttemptId, worker: &WorkerId) -> bool {
        let task = self.find(attempt.task);
        task.is_some_and(|task| task.attempts == attempt.no.0 && task.is_on(worker))
    }

    /// Whether the history ever gave this attempt to this worker.
    pub(crate) fn was_placed(&self, attempt: AttemptId, worker: &WorkerId) -> bool {
        self.placed.get(&attempt) == Some(worker)
    }

    /// Every worker that ever registered, by id.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &WorkerId> {
        self.sessions.keys()
    }

    /// What a machine really has.
    pub(crate) fn capacity(&self, worker: &WorkerId) -> Resources {
        self.machines.get(worker).copied().unwrap_or_default()
    }

    /// Which worker has this attempt in its hands, by the history.
    pub(crate) fn find_holder(&self, attempt: AttemptId) -> Option<&WorkerId> {
        let task = self.find(attempt.task).filter(|task| task.attempts == attempt.no.0)?;
        match &task.place {
            Place::Held { worker, .. } => Some(worker),
            Place::Waiting | Place::Ended(_) => None,
        }
    }

    /// A client's wish has come to the master.
    pub(crate) fn cancel_wanted(&mut self, target: CancelTarget) {
        match target {
            CancelTarget::Job(job) => drop(self.unwanted_jobs.insert(job)),
            CancelTarget::Task(task) => drop(self.unwanted_tasks.insert(task)),
        }
    }

    /// Only what a client does not want is cancelled.
    fn check_unwanted(&self, task: TaskId) -> Result<(), String> {
        if self.unwanted_jobs.contains(&task.job) || self.unwanted_tasks.contains(&task) {
            return Ok(());
        }
        Err(format!("only what a client does not want is cancelled: nobody asked it of {task}"))
    }

    /// The first task of this target that has not ended.
    pub(crate) fn find_open(&self, target: CancelTarget) -> Option<TaskId> {
        let job_id = match target {
            CancelTarget::Job(job) => job,
            CancelTarget::Task(task) => task.job,
        };
        let job = self.jobs.get(&job_id)?;
        let open = job.tasks.iter().filter(|(_, task)| !matches!(task.place, Place::Ended(_)));
        let mut open = open.map(|(position, _)| job.shape.task_id(job_id, *position));
        open.find(|task| is_about(target, *task))
    }

    /// Takes the next stored event.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::WorkerRegistered { worker } => {
                if self.machines.get(&worker.id) != Some(&worker.capacity) {
                    return Err(format!(
                        "a worker is registered with what it has: {} is not",
                        worker.id
                    ));
                }
                if self.sessions.values().any(|session| *session >= worker.session) {
                    return Err(format!("a session is never given twice: {} is", worker.session));
                }
                self.sessions.insert(worker.id.clone(), worker.session);
                Ok(())
            }
            Event::JobSubmitted { job, spec, shape, .. } => self.submitted(*job, spec, *shape),
            Event::AttemptPlaced { attempt, hold } => self.placed(*attempt, hold),
            Event::AttemptStarted { attempt, .. } => {
                let task = self.current(*attempt)?;
                let Place::Held { started, .. } = &mut task.place else { unreachable!() };
                if std::mem::replace(started, true) {
                    return Err(format!("{attempt} is told as started twice"));
                }
                Ok(())
            }
            Event::AttemptAdopted { attempt, session: newer } => {
                let task = self.current(*attempt)?;
                let Place::Held { session, .. } = &mut task.place else { unreachable!() };
                *session = *newer;
                Ok(())
            }
            Event::AttemptLost { attempt, cause, .. } => self.lost(*attempt, *cause),
            Event::CancelRequested { task, .. } => {
                self.check_unwanted(*task)?;
                let found = self.jobs.get_mut(&task.job);
                let found = found.and_then(|job| job.tasks.get_mut(&task.position()));
                let found = found.ok_or_else(|| format!("{task} is cancelled and never was"))?;
                found.cancel_requested = true;
                Ok(())
            }
            Event::FreshCancelled { job, first, last, .. } => {
                self.fresh_cancelled(*job, *first, *last)
            }
            Event::TaskFinished { attempt, outcome, .. } => self.finished(*attempt, outcome.cause),
        }
    }

    fn submitted(
        &mut self,
        id: JobId,
        spec: &Arc<TaskSpec>,
        shape: JobShape,
    ) -> Result<(), String> {
        let (first, last) = shape.span();
        let tasks = (first..=last).map(|position| (position, Task::default())).collect();
        let job = Job { spec: Arc::clone(spec), shape, tasks };
        match self.jobs.insert(id, job) {
            None => Ok(()),
            Some(_) => Err(format!("a job's number is never given twice: {id} is")),
        }
    }

    fn fresh_cancelled(&mut self, id: JobId, first: u32, last: u32) -> Result<(), String> {
        let job = self.jobs.get(&id).ok_or_else(|| format!("{id} never was"))?;
        for position in first..=last {
            self.check_unwanted(job.shape.task_id(id, position))?;
        }
        let job = self.jobs.get_mut(&id).expect("found above");
        for (_, task) in job.tasks.range_mut(first..=last) {
            if task.attempts == 0 && task.place == Place::Waiting {
                task.cancel_requested = true;
                task.place = Place::Ended(Cause::Cancelled);
            }
        }
        Ok(())
    }

    fn placed(&mut self, attempt: AttemptId, hold: &Hold) -> Result<(), String> {
        let task = self.find(attempt.task);
        let task = task.ok_or_else(|| format!("{attempt} is placed and its task never was"))?;
        if task.place != Place::Waiting {
            return Err(format!(
                "only what waits is placed: {attempt} is placed from {:?}",
                task.place
            ));
        }
        if attempt.no.0 <= task.attempts {
            return Err(format!("attempts are numbered upwards: {attempt} was placed before"));
        }
        if self.sessions.get(&hold.worker) != Some(&hold.session) {
            return Err(format!("{attempt} is placed under a session that is not the present one"));
        }
        self.check_room(attempt, &hold.worker)?;
        let job = self.jobs.get_mut(&attempt.task.job).expect("found above");
        let task = job.tasks.get_mut(&attempt.task.position()).expect("found above");
        task.attempts = attempt.no.0;
        self.placed.insert(attempt, hold.worker.clone());
        let (worker, session) = (hold.worker.clone(), hold.session);
        task.place = Place::Held { worker, session, started: false };
        Ok(())
    }

    /// Counts what the worker holds, from the tasks themselves.
    fn check_room(&self, attempt: AttemptId, worker: &WorkerId) -> Result<(), String> {
        let mut sum = self.jobs[&attempt.task.job].spec.needs;
        for job in self.jobs.values() {
            let count = job.tasks.values().filter(|task| task.is_on(worker)).count() as u64;
            let needs = job.spec.needs.checked_mul(count);
            let whole = needs.and_then(|needs| sum.checked_add(needs));
            sum = whole.ok_or("a sum of needs overflows")?;
        }
        match sum.find_lack(self.machines[worker]) {
            None => Ok(()),
            Some(lack) => Err(format!("capacity is never oversold: {worker} by {attempt}: {lack}")),
        }
    }

    /// The task of an attempt that the history has in the hands of a worker.
    fn current(&mut self, attempt: AttemptId) -> Result<&mut Task, String> {
        let job = self.jobs.get_mut(&attempt.task.job);
        let task = job.and_then(|job| job.tasks.get_mut(&attempt.task.position()));
        let task = task.ok_or_else(|| format!("{attempt} is told of and its task never was"))?;
        if task.attempts != attempt.no.0 || !matches!(task.place, Place::Held { .. }) {
            return Err(format!(
                "only the current attempt counts: {attempt} is told of, the task has had {} and \
                 stands at {:?}",
                task.attempts, task.place
            ));
        }
        Ok(task)
    }

    fn lost(&mut self, attempt: AttemptId, cause: LossCause) -> Result<(), String> {
        let job = self.jobs.get(&attempt.task.job);
        let retry = job.map(|job| job.spec.retry).unwrap_or_default();
        let task = self.current(attempt)?;
        if task.cancel_requested {
            return Err(format!("cancel wins: {attempt} is to be tried again after its cancel"));
        }
        let started = matches!(task.place, Place::Held { started: true, .. });
        task.place = Place::Waiting;
        match cause {
            LossCause::Failed(_) => task.failures += 1,
            LossCause::WorkerLost if started => task.crashes += 1,
            LossCause::WorkerLost | LossCause::Infra => task.infra += 1,
            LossCause::WorkerStopped => {}
        }
        let (lost, most) = match cause {
            LossCause::Failed(_) => (task.failures, retry.retries_max),
            LossCause::WorkerLost if started => (task.crashes, retry.crashes_max),
            _ => (task.infra, bounds::INFRA_LOSSES_MAX),
        };
        if lost > most {
            return Err(format!(
                "a budget that is used up ends its task: {attempt} is to be tried again after \
                 {lost} losses ({cause:?}) of at most {most}"
            ));
        }
        Ok(())
    }

    fn finished(&mut self, attempt: AttemptId, cause: Cause) -> Result<(), String> {
        if cause == Cause::Cancelled {
            self.check_unwanted(attempt.task)?;
        }
        let job = self.jobs.get_mut(&attempt.task.job);
        let retry = job.as_ref().map(|job| job.spec.retry).unwrap_or_default();
        let task = job.and_then(|job| job.tasks.get_mut(&attempt.task.position()));
        let task = task.ok_or_else(|| format!("{attempt} ended and its task never was"))?;
        if let Place::Ended(before) = task.place {
            return Err(format!("a task ends once: {attempt} ended with {before}, then {cause}"));
        }
        let is_held = matches!(task.place, Place::Held { .. });
        let started = matches!(task.place, Place::Held { started: true, .. });
        if is_held && task.attempts != attempt.no.0 {
            return Err(format!("a task ends with its current attempt: {attempt} is not"));
        }
        let fits = match cause {
            // A task that waits for another try is cancelled without a worker's word.
            Cause::Cancelled => task.cancel_requested || !is_held,
            Cause::WorkerLost if started => task.crashes >= retry.crashes_max,
            Cause::WorkerLost | Cause::Infra => task.infra >= bounds::INFRA_LOSSES_MAX,
            cause if cause.is_success() => is_held,
            _ => is_held && task.failures >= retry.retries_max,
        };
        if task.cancel_requested && cause != Cause::Cancelled {
            return Err(format!("cancel wins: {attempt} ended with {cause} after its cancel"));
        }
        if !fits {
            return Err(format!("a budget is used up before it ends a task: {cause} for {task:?}"));
        }
        task.place = Place::Ended(cause);
        Ok(())
    }

    /// Whether what a store gives back is what the history made: every open job, each task in its
    /// place, and nothing else.
    pub(crate) fn check_restored(&self, snapshot: &Snapshot) -> Result<(), String> {
        for (id, job) in &self.jobs {
            let open = job.tasks.values().any(|task| !matches!(task.place, Place::Ended(_)));
            let Some(stored) = snapshot.jobs.get(id) else {
                if open {
                    return Err(format!("what is stored exists for ever: {id} is gone"));
                }
                continue;
            };
            for (position, task) in &job.tasks {
                let live = stored.live.get(position);
                let hold = live.and_then(|live| live.find_hold());
                let is_running =
                    live.is_some_and(|live| matches!(live.state, LiveState::Running { .. }));
                let agrees = match &task.place {
                    Place::Waiting => {
                        hold.is_none() && (live.is_some() || stored.fresh.contains(*position))
                    }
                    Place::Held { worker, session, started } => hold.is_some_and(|hold| {
                        hold.worker == *worker && hold.session == *session && is_running == *started
                    }),
                    Place::Ended(_) => live.is_none() && !stored.fresh.contains(*position),
                };
                let asked = live.is_some_and(|live| live.cancel_requested);
                let is_open = !matches!(task.place, Place::Ended(_));
                if !agrees || (is_open && asked != task.cancel_requested) {
                    let task_id = job.shape.task_id(*id, *position);
                    return Err(format!(
                        "a restart brings back what was stored: {task_id} should be {:?}, the \
                         store has {live:?}",
                        task.place
                    ));
                }
            }
        }
        match snapshot.jobs.keys().find(|id| !self.jobs.contains_key(id)) {
            None => Ok(()),
            Some(id) => Err(format!("only what was stored comes back: {id} never was")),
        }
    }
}
