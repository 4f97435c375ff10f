//! The second, simpler truth: every task of every job written out, and lists made by looking at
//! all of them. It shares nothing with the code under test but the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudai_model::{
    AttemptEnd, AttemptId, AttemptNo, Cause, Ended, EndedCounts, Event, Hold, JobId, JobRecord,
    JobShape, LiveState, LiveTask, LossCause, Numbers, Outcome, Queued, Ranges, RequestId, Session,
    Snapshot, Spent, TaskId, TaskRecord, TaskSpec, TaskState, TaskStatus, Timestamp, WorkerId,
    WorkerRecord,
};

use crate::{LostAttempt, StatusCounts, TaskQuery};

#[derive(Default)]
pub(super) struct Reference {
    numbers: Numbers,
    pub(super) workers: BTreeMap<WorkerId, WorkerRecord>,
    jobs: BTreeMap<JobId, Job>,
}

struct Job {
    spec: Arc<TaskSpec>,
    shape: JobShape,
    request: Option<RequestId>,
    submitted_at: Timestamp,
    tasks: BTreeMap<u32, Task>,
}

#[derive(Clone)]
struct Task {
    state: TaskState,
    lost: Vec<LostAttempt>,
}

impl Reference {
    pub(super) fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::WorkerRegistered { worker } => {
                self.numbers.last_session = worker.session.0;
                self.workers.insert(worker.id.clone(), worker);
            }
            Event::JobSubmitted { job, spec, shape, request, at } => {
                self.numbers.last_job = job.0;
                let task = Task { state: TaskState::Fresh, lost: Vec::new() };
                let tasks = shape.positions().iter().map(|at| (at, task.clone())).collect();
                self.jobs.insert(job, Job { spec, shape, request, submitted_at: at, tasks });
            }
            Event::AttemptPlaced { attempt, hold } => {
                let task = self.task(attempt.task);
                task.state = TaskState::Live(match task.state.clone() {
                    TaskState::Fresh => LiveTask {
                        attempt: attempt.no,
                        state: LiveState::Assigned(hold),
                        cancel_requested: false,
                        spent: Spent::default(),
                    },
                    TaskState::Live(live) => {
                        LiveTask { attempt: attempt.no, state: LiveState::Assigned(hold), ..live }
                    }
                    TaskState::Ended(_) => panic!("{attempt} had ended"),
                });
            }
            Event::AttemptStarted { attempt, at } => {
                let hold = self.hold(attempt);
                self.live(attempt.task).state = LiveState::Running { hold, started_at: at };
            }
            Event::AttemptAdopted { attempt, session: new } => match self.live(attempt.task) {
                LiveTask {
                    state:
                        LiveState::Assigned(Hold { session, .. })
                        | LiveState::Running { hold: Hold { session, .. }, .. },
                    ..
                } => *session = new,
                other => panic!("{attempt} adopted from {other:?}"),
            },
            Event::AttemptLost { attempt, cause, message, at } => {
                self.attempt_lost(attempt, cause, message, at);
            }
            Event::CancelRequested { task, at: _ } => self.live(task).cancel_requested = true,
            Event::FreshCancelled { job, first, last, at } => {
                let tasks = &mut self.jobs.get_mut(&job).unwrap().tasks;
                let fresh = |task: &&mut Task| task.state == TaskState::Fresh;
                for task in tasks.range_mut(first..=last).map(|(_, task)| task).filter(fresh) {
                    let outcome = Outcome::new(Cause::Cancelled, "");
                    task.state = TaskState::Ended(Ended { outcome, ended_at: at, by: None });
                }
            }
            Event::TaskFinished { attempt, outcome, finished_at, at } => {
                let live = self.live(attempt.task).clone();
                let started_at = started_at(&live);
                let by = live.find_hold().map(|hold| AttemptEnd {
                    attempt: live.attempt,
                    hold: hold.clone(),
                    started_at,
                    finished_at,
                });
                let ended = Ended { outcome, ended_at: at, by };
                self.task(attempt.task).state = TaskState::Ended(ended);
            }
        }
    }

    fn attempt_lost(&mut self, id: AttemptId, cause: LossCause, message: String, at: Timestamp) {
        let hold = self.hold(id);
        let live = self.live(id.task);
        let started_at = started_at(live);
        live.attempt = AttemptNo(live.attempt.0 + 1);
        live.state = LiveState::Queued(Queued { lost: cause, lost_at: at });
        match cause {
            LossCause::Failed(_) => live.spent.failures += 1,
            LossCause::WorkerLost if started_at.is_some() => live.spent.crashes += 1,
            LossCause::WorkerLost | LossCause::Infra => live.spent.infra += 1,
            LossCause::WorkerStopped => {}
        }
        let lost = LostAttempt { no: id.no, cause, message, hold, started_at, lost_at: at };
        self.task(id.task).lost.push(lost);
    }

    fn task(&mut self, id: TaskId) -> &mut Task {
        self.jobs.get_mut(&id.job).unwrap().tasks.get_mut(&id.position()).unwrap()
    }

    fn live(&mut self, id: TaskId) -> &mut LiveTask {
        match &mut self.task(id).state {
            TaskState::Live(live) => live,
            other => panic!("{id} is {other:?}"),
        }
    }

    fn hold(&mut self, id: AttemptId) -> Hold {
        self.live(id.task).find_hold().unwrap().clone()
    }

    pub(super) fn next_job(&self) -> u64 {
        self.numbers.last_job + 1
    }

    pub(super) fn next_session(&self) -> Session {
        Session(self.numbers.last_session + 1)
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }

    pub(super) fn shape(&self, job: JobId) -> JobShape {
        self.jobs[&job].shape
    }

    pub(super) fn attempts(&self, id: TaskId) -> Vec<LostAttempt> {
        self.jobs[&id.job].tasks[&id.position()].lost.clone()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let open = self.jobs.iter().filter_map(|(id, job)| Some((*id, record(*id, job)?)));
        Snapshot { numbers: self.numbers, workers: self.workers.clone(), jobs: open.collect() }
    }

    pub(super) fn counts(&self, job: Option<JobId>) -> StatusCounts {
        let records = self.list(&TaskQuery { job, ..TaskQuery::default() });
        let count = |status| records.iter().filter(|task| task.status() == status).count() as u64;
        StatusCounts {
            queued: count(TaskStatus::Queued),
            assigned: count(TaskStatus::Assigned),
            running: count(TaskStatus::Running),
            succeeded: count(TaskStatus::Succeeded),
            failed: count(TaskStatus::Failed),
            cancelled: count(TaskStatus::Cancelled),
        }
    }

    /// All tasks of a query at once, without regard to its limit.
    pub(super) fn list(&self, query: &TaskQuery) -> Vec<TaskRecord> {
        let mut records: Vec<TaskRecord> = Vec::new();
        for (id, job) in &self.jobs {
            for (position, task) in &job.tasks {
                let record = TaskRecord {
                    id: job.shape.task_id(*id, *position),
                    spec: Arc::clone(&job.spec),
                    submitted_at: job.submitted_at,
                    state: task.state.clone(),
                };
                if matches(query, &record) {
                    records.push(record);
                }
            }
        }
        if query.newest_first {
            records.reverse();
        }
        records
    }
}

fn started_at(live: &LiveTask) -> Option<Timestamp> {
    match &live.state {
        LiveState::Running { started_at, .. } => Some(*started_at),
        LiveState::Queued(_) | LiveState::Assigned(_) => None,
    }
}

fn record(id: JobId, job: &Job) -> Option<JobRecord> {
    let (first, last) = job.shape.span();
    let mut fresh = Ranges::from_span(first, last);
    let mut live = BTreeMap::new();
    let mut ended = EndedCounts::default();
    for (position, task) in &job.tasks {
        match &task.state {
            TaskState::Fresh => continue,
            TaskState::Live(task) => drop(live.insert(*position, task.clone())),
            TaskState::Ended(end) => match end.outcome.cause {
                Cause::Exit(0) => ended.succeeded += 1,
                Cause::Cancelled => ended.cancelled += 1,
                _ => ended.failed += 1,
            },
        }
        fresh.remove(*position);
    }
    if fresh.is_empty() && live.is_empty() {
        return None;
    }
    Some(JobRecord {
        id,
        spec: Arc::clone(&job.spec),
        shape: job.shape,
        request: job.request.clone(),
        submitted_at: job.submitted_at,
        fresh,
        live,
        ended,
    })
}

fn matches(query: &TaskQuery, record: &TaskRecord) -> bool {
    let worker = match &record.state {
        TaskState::Fresh => None,
        TaskState::Live(live) => live.find_hold().map(|hold| &hold.worker),
        TaskState::Ended(ended) => ended.by.as_ref().map(|by| &by.hold.worker),
    };
    let name = record.spec.name.as_deref().unwrap_or("");
    let behind = query.after.is_none_or(|after| {
        let (at, after) = ((record.id.job, record.id.position()), (after.job, after.position));
        if query.newest_first { at < after } else { at > after }
    });
    query.job.is_none_or(|job| job == record.id.job)
        && (query.statuses.is_empty() || query.statuses.contains(&record.status()))
        && query.worker.as_ref().is_none_or(|wanted| worker == Some(wanted))
        && query.name.as_deref().is_none_or(|part| name.contains(part))
        && query.user.as_ref().is_none_or(|user| record.spec.origin.user == *user)
        && behind
}
