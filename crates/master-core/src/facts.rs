//! What is true: the durable state and the indexes derived from it. [`Facts::apply`] is the only
//! function that changes it, on the live path and on recovery alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_model::{
    AttemptId, EndedCounts, Event, Hold, JobId, JobRecord, LiveState, LiveTask, Numbers, RequestId,
    Resources, Session, Snapshot, TaskId, TaskSpec, TaskStatus, WorkerId, WorkerRecord,
};
use thiserror::Error;

use crate::queue::Queue;

/// A snapshot that no run of this core can have written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A live attempt on a worker that is not there.
    #[error("{attempt} is held by worker '{worker}', which the store does not have")]
    NoWorker {
        /// The attempt.
        attempt: AttemptId,
        /// The missing worker.
        worker: WorkerId,
    },
    /// A number above the last one that was given.
    #[error("the store has {0}, but says that it never gave that number")]
    Number(String),
    /// Needs whose sum overflows.
    #[error("the attempts on worker '{0}' need more than can be counted")]
    Overflow(WorkerId),
    /// A position outside its job.
    #[error("{0} has a task outside its range")]
    Position(JobId),
}

/// A worker with what it holds.
#[derive(Debug)]
pub(crate) struct WorkerFacts {
    pub(crate) record: WorkerRecord,
    /// Tasks whose current attempt it holds.
    pub(crate) held: BTreeSet<TaskId>,
    /// The sum of their needs.
    pub(crate) allocated: Resources,
    /// The record's volumes, shared with every offer.
    pub(crate) volumes: Arc<BTreeSet<String>>,
}

impl WorkerFacts {
    fn new(record: WorkerRecord) -> Self {
        let volumes = Arc::new(record.volumes.clone());
        Self { record, held: BTreeSet::new(), allocated: Resources::default(), volumes }
    }

    /// Derived, never stored: there is nothing to repair.
    pub(crate) fn free(&self) -> Resources {
        self.record.capacity.saturating_sub(self.allocated)
    }
}

/// The durable state, with its indexes.
#[derive(Debug, Default)]
pub struct Facts {
    pub(crate) numbers: Numbers,
    pub(crate) jobs: BTreeMap<JobId, JobRecord>,
    pub(crate) workers: BTreeMap<WorkerId, WorkerFacts>,
    pub(crate) requests: BTreeMap<RequestId, JobId>,
    pub(crate) queue: Queue,
    /// Every spec in use, and by how many jobs.
    specs: BTreeMap<Arc<TaskSpec>, u64>,
}

impl Facts {
    /// The state that a store loaded, checked, with its indexes made anew.
    pub fn restore(snapshot: Snapshot) -> Result<Self, RestoreError> {
        let mut facts = Self { numbers: snapshot.numbers, ..Self::default() };
        for (id, record) in snapshot.workers {
            if record.session.0 > facts.numbers.last_session {
                return Err(RestoreError::Number(record.session.to_string()));
            }
            facts.workers.insert(id, WorkerFacts::new(record));
        }
        for (id, job) in snapshot.jobs {
            facts.restore_job(id, job)?;
        }
        Ok(facts)
    }

    fn restore_job(&mut self, id: JobId, mut job: JobRecord) -> Result<(), RestoreError> {
        if id.0 > self.numbers.last_job {
            return Err(RestoreError::Number(id.to_string()));
        }
        let (first, last) = job.shape.span();
        let spans = job.fresh.spans().chain(job.live.keys().map(|position| (*position, *position)));
        if spans.into_iter().any(|(low, high)| low < first || high > last) {
            return Err(RestoreError::Position(id));
        }
        for (position, task) in &job.live {
            let Some(hold) = task.find_hold() else { continue };
            let task_id = job.shape.task_id(id, *position);
            let Some(worker) = self.workers.get_mut(&hold.worker) else {
                let attempt = AttemptId { task: task_id, no: task.attempt };
                return Err(RestoreError::NoWorker { attempt, worker: hold.worker.clone() });
            };
            let sum = worker.allocated.checked_add(job.spec.needs);
            worker.allocated = sum.ok_or_else(|| RestoreError::Overflow(hold.worker.clone()))?;
            worker.held.insert(task_id);
        }
        job.spec = self.intern(job.spec);
        if let Some(request) = &job.request {
            self.requests.insert(request.clone(), id);
        }
        self.queue.insert(&job);
        self.jobs.insert(id, job);
        Ok(())
    }

    /// The durable part, as a store would load it.
    pub fn snapshot(&self) -> Snapshot {
        let workers = self.workers.iter();
        Snapshot {
            numbers: self.numbers,
            workers: workers.map(|(id, worker)| (id.clone(), worker.record.clone())).collect(),
            jobs: self.jobs.clone(),
        }
    }

    /// Makes an event true. Panics on one that cannot follow from the present state: the core
    /// decides only on what can, and going on would be worse.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::WorkerRegistered { worker } => self.worker_registered(worker),
            Event::JobSubmitted { job, spec, shape, request, at } => {
                assert!(job.0 > self.numbers.last_job, "{job} was given before");
                self.numbers.last_job = job.0;
                let record = JobRecord {
                    id: *job,
                    spec: self.intern(Arc::clone(spec)),
                    shape: *shape,
                    request: request.clone(),
                    submitted_at: *at,
                    fresh: shape.positions(),
                    live: BTreeMap::new(),
                    ended: EndedCounts::default(),
                };
                if let Some(request) = request {
                    self.requests.insert(request.clone(), *job);
                }
                self.queue.insert(&record);
                self.jobs.insert(*job, record);
            }
            Event::AttemptPlaced { attempt, hold } => self.attempt_placed(*attempt, hold),
            Event::AttemptStarted { attempt, at } => {
                let task = self.current(*attempt);
                let LiveState::Assigned(hold) = &task.state else {
                    panic!("{attempt} started from {:?}", task.state)
                };
                task.state = LiveState::Running { hold: hold.clone(), started_at: *at };
            }
            Event::AttemptAdopted { attempt, session } => self.attempt_adopted(*attempt, *session),
            Event::AttemptLost { attempt, cause, at, message: _ } => {
                self.let_go(*attempt);
                let task = self.current(*attempt);
                task.lose(*cause, *at);
                let job = &self.jobs[&attempt.task.job];
                self.queue.give_back(job, attempt.task.position());
            }
            Event::CancelRequested { task, at: _ } => {
                let live = self.live_mut(*task).expect("only a live task is asked to stop");
                live.cancel_requested = true;
            }
            Event::FreshCancelled { job, first, last, at: _ } => {
                self.fresh_cancelled(*job, *first, *last);
            }
            Event::TaskFinished { attempt, outcome, finished_at: _, at: _ } => {
                self.let_go(*attempt);
                self.current(*attempt);
                let position = attempt.task.position();
                let job = self.jobs.get_mut(&attempt.task.job).expect("checked by current");
                job.live.remove(&position);
                match TaskStatus::of_outcome(outcome) {
                    TaskStatus::Succeeded => job.ended.succeeded += 1,
                    TaskStatus::Cancelled => job.ended.cancelled += 1,
                    _ => job.ended.failed += 1,
                }
                self.queue.take(&self.jobs[&attempt.task.job], position);
                self.retire(attempt.task.job);
            }
        }
    }

    fn worker_registered(&mut self, record: &WorkerRecord) {
        let last = &mut self.numbers.last_session;
        assert!(record.session.0 > *last, "{} was given before", record.session);
        *last = record.session.0;
        if let Some(worker) = self.workers.get_mut(&record.id) {
            worker.record = record.clone();
            worker.volumes = Arc::new(record.volumes.clone());
        } else {
            self.workers.insert(record.id.clone(), WorkerFacts::new(record.clone()));
        }
    }

    fn attempt_placed(&mut self, attempt: AttemptId, hold: &Hold) {
        let position = attempt.task.position();
        let job = self.jobs.get_mut(&attempt.task.job).expect("only a live job is placed");
        if job.fresh.remove(position) {
            job.live.insert(position, LiveTask::placed(attempt.no, hold.clone()));
        } else {
            let task = job.live.get_mut(&position).expect("only a queued task is placed");
            assert!(matches!(task.state, LiveState::Queued(_)), "{attempt} is held already");
            let next = self.numbers.attempt_no(task.attempt);
            assert_eq!(next, attempt.no, "{attempt} is not the next attempt");
            task.attempt = attempt.no;
            task.state = LiveState::Assigned(hold.clone());
        }
        let needs = job.spec.needs;
        let worker = self.workers.get_mut(&hold.worker).expect("only a known worker is given work");
        let sum = worker.allocated.checked_add(needs);
        worker.allocated = sum.expect("the sum of what fits does not overflow");
        worker.held.insert(attempt.task);
        self.queue.take(&self.jobs[&attempt.task.job], position);
    }

    fn attempt_adopted(&mut self, attempt: AttemptId, session: Session) {
        let task = self.current(attempt);
        match &mut task.state {
            LiveState::Assigned(hold) | LiveState::Running { hold, .. } => hold.session = session,
            LiveState::Queued(_) => panic!("{attempt} is queued and cannot be adopted"),
        }
    }

    fn fresh_cancelled(&mut self, id: JobId, first: u32, last: u32) {
        let job = self.jobs.get_mut(&id).expect("only a live job is cancelled");
        let before = job.fresh.count();
        job.fresh.remove_span(first, last);
        job.ended.cancelled += before - job.fresh.count();
        self.queue.refresh(&self.jobs[&id]);
        self.retire(id);
    }

    /// Frees what the attempt's worker held for it, when one did.
    fn let_go(&mut self, attempt: AttemptId) {
        let job = self.jobs.get(&attempt.task.job).expect("only a live job's attempt ends");
        let task = job.live.get(&attempt.task.position()).expect("only a live attempt ends");
        let Some(hold) = task.find_hold() else { return };
        let worker = self.workers.get_mut(&hold.worker).expect("a holder is a known worker");
        let rest = worker.allocated.checked_sub(job.spec.needs);
        worker.allocated = rest.expect("what is let go was held");
        assert!(worker.held.remove(&attempt.task), "what is let go was held");
    }

    fn current(&mut self, attempt: AttemptId) -> &mut LiveTask {
        let task = self.live_mut(attempt.task).expect("an event is about a live task");
        assert_eq!(task.attempt, attempt.no, "{attempt} is not the current attempt");
        task
    }

    fn live_mut(&mut self, task: TaskId) -> Option<&mut LiveTask> {
        self.jobs.get_mut(&task.job)?.live.get_mut(&task.position())
    }

    /// The live entry of a task, when it has one; the id must be of the job's shape.
    pub(crate) fn find_live(&self, task: TaskId) -> Option<&LiveTask> {
        let job = self.jobs.get(&task.job)?;
        job.live.get(&job.shape.find_position(task)?)
    }

    /// An ended job leaves the core.
    fn retire(&mut self, id: JobId) {
        let job = &self.jobs[&id];
        if !job.fresh.is_empty() || !job.live.is_empty() {
            return;
        }
        assert_eq!(job.ended.total(), job.shape.task_count(), "{id} ended with tasks missing");
        self.queue.remove(id);
        let job = self.jobs.remove(&id).expect("looked up above");
        if let Some(request) = &job.request {
            self.requests.remove(request);
        }
        let users = self.specs.get_mut(&job.spec).expect("a live job's spec is interned");
        *users -= 1;
        if *users == 0 {
            self.specs.remove(&job.spec);
        }
    }

    fn intern(&mut self, mut spec: Arc<TaskSpec>) -> Arc<TaskSpec> {
        if let Some((shared, _)) = self.specs.get_key_value(&spec) {
            spec = Arc::clone(shared);
        }
        *self.specs.entry(Arc::clone(&spec)).or_default() += 1;
        spec
    }

    /// Panics when an index does not follow from the durable state. For tests and the simulator.
    pub fn assert_consistent(&self) {
        let again = Self::restore(self.snapshot()).expect("the live state can be restored");
        assert_eq!(self.snapshot(), again.snapshot(), "restore changes the durable state");
        for (id, worker) in &self.workers {
            assert_eq!(worker.held, again.workers[id].held, "held by {id}");
            assert_eq!(worker.allocated, again.workers[id].allocated, "allocated on {id}");
        }
        assert_eq!(self.requests, again.requests, "request ids");
        assert_eq!(self.specs, again.specs, "shared specs");
        assert_eq!(self.queue.queued_count, again.queue.queued_count, "tasks that wait");
        self.queue.assert_follows(again.queue, &self.jobs);
    }
}

#[cfg(test)]
mod tests {
    use cloudai_model::{Numbers, Ranges, Timestamp};

    use super::*;

    fn snapshot(fresh: Ranges) -> Snapshot {
        let id = JobId(1);
        let job = JobRecord {
            id,
            spec: Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS)),
            shape: cloudai_model::JobShape::Array { first: 3, last: 5, at_once_max: None },
            request: None,
            submitted_at: Timestamp(1),
            fresh,
            live: BTreeMap::new(),
            ended: EndedCounts::default(),
        };
        let numbers = Numbers { last_job: 1, ..Numbers::default() };
        Snapshot { numbers, jobs: [(id, job)].into(), ..Snapshot::default() }
    }

    #[test]
    fn a_position_outside_its_job_is_refused_on_either_side() {
        for (first, last, good) in [(3, 5, true), (4, 4, true), (2, 5, false), (3, 6, false)] {
            let restored = Facts::restore(snapshot(Ranges::from_span(first, last)));
            assert_eq!(restored.is_ok(), good, "{first} to {last}");
        }
    }

    #[test]
    #[should_panic(expected = "tasks that wait")]
    fn an_index_that_does_not_follow_from_the_state_is_found() {
        let mut facts = Facts::restore(snapshot(Ranges::from_span(3, 5))).unwrap();
        facts.assert_consistent();
        facts.queue.queued_count += 1;
        facts.assert_consistent();
    }
}
