//! What a batch of events changes. Events of one task that come in one batch end up as one final
//! row, and rows come out sorted by key, so that a backend writes each row once and nearly in
//! sequence. Nothing here writes: when any event is refused, the whole batch leaves no trace.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_model::{
    AttemptId, Cause, Ended, Event, Hold, JobId, JobShape, LiveState, LossCause, Outcome, Ranges,
    RequestId, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp, WorkerId, WorkerRecord,
};

use crate::rows::{CancelledSpan, Cluster, JobRow, Rows};
use crate::transition::{self, Step};
use crate::{LostAttempt, StoreError};

/// Everything that a backend has to write for one batch.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) cluster: Cluster,
    pub(crate) workers: BTreeMap<WorkerId, WorkerRecord>,
    pub(crate) jobs: BTreeMap<JobId, JobChange>,
    pub(crate) tasks: BTreeMap<(JobId, u32), TaskChange>,
    pub(crate) spans: Vec<(JobId, CancelledSpan)>,
    pub(crate) losses: Vec<(JobId, u32, LostAttempt)>,
}

/// A job that the batch touched.
#[derive(Debug)]
pub(crate) struct JobChange {
    pub(crate) row: JobRow,
    /// Set when the batch made the job.
    pub(crate) submit: Option<Submit>,
}

/// What is stored once for a job.
#[derive(Debug)]
pub(crate) struct Submit {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) request: Option<RequestId>,
}

/// A task that the batch touched; never left in [`TaskState::Fresh`].
#[derive(Debug)]
pub(crate) struct TaskChange {
    pub(crate) state: TaskState,
    /// Whether it has a row already.
    pub(crate) stored: bool,
}

/// Applies the events, in order, to what the backend has.
pub(crate) fn changes<R: Rows>(rows: &mut R, events: &[Event]) -> Result<Changes, R::Error> {
    let changes = Changes { cluster: rows.cluster()?, ..Changes::default() };
    let mut turn = Turn { rows, changes };
    for event in events {
        turn.apply(event)?;
    }
    Ok(turn.changes)
}

struct Turn<'a, R> {
    rows: &'a mut R,
    changes: Changes,
}

impl<R: Rows> Turn<'_, R> {
    fn apply(&mut self, event: &Event) -> Result<(), R::Error> {
        match event {
            Event::WorkerRegistered { worker } => self.worker_registered(worker),
            Event::JobSubmitted { job, spec, shape, request, at } => {
                let submit = Submit { spec: Arc::clone(spec), request: request.clone() };
                self.job_submitted(*job, submit, *shape, *at)
            }
            Event::AttemptPlaced { attempt, hold } => self.attempt_placed(*attempt, hold),
            Event::AttemptStarted { attempt, at } => {
                self.step(attempt.task, Step::Started { no: attempt.no, at: *at })
            }
            Event::AttemptAdopted { attempt, session } => {
                self.step(attempt.task, Step::Adopted { no: attempt.no, session: *session })
            }
            Event::AttemptLost { attempt, cause, message, at } => {
                self.attempt_lost(*attempt, *cause, message, *at)
            }
            Event::CancelRequested { task, at: _ } => self.step(*task, Step::CancelRequested),
            Event::FreshCancelled { job, first, last, at } => {
                self.fresh_cancelled(*job, *first, *last, *at)
            }
            Event::TaskFinished { attempt, outcome, finished_at, at } => {
                let outcome = outcome.clone();
                let (no, finished_at, at) = (attempt.no, *finished_at, *at);
                self.step(attempt.task, Step::Finished { no, outcome, finished_at, at })
            }
        }
    }

    fn worker_registered(&mut self, worker: &WorkerRecord) -> Result<(), R::Error> {
        let last = &mut self.changes.cluster.numbers.last_session;
        if worker.session.0 <= *last {
            let what = format!("{} of worker '{}' was given before", worker.session, worker.id);
            return Err(StoreError::corrupt(what).into());
        }
        *last = worker.session.0;
        self.changes.workers.insert(worker.id.clone(), worker.clone());
        Ok(())
    }

    fn job_submitted(
        &mut self,
        id: JobId,
        submit: Submit,
        shape: JobShape,
        at: Timestamp,
    ) -> Result<(), R::Error> {
        let cluster = &mut self.changes.cluster;
        if id.0 <= cluster.numbers.last_job {
            return Err(StoreError::corrupt(format!("{id} was given before")).into());
        }
        // Positions are counted with numbers that a checked shape cannot overflow.
        let shape = shape.validate().map_err(|e| StoreError::corrupt(format!("{id}: {e}")))?;
        if let Some(request) = &submit.request {
            let is_this = |change: &JobChange| {
                change.submit.as_ref().is_some_and(|made| made.request.as_ref() == Some(request))
            };
            let taken = self.changes.jobs.values().any(is_this);
            if taken || self.rows.find_request(request)?.is_some() {
                let what = format!("request '{}' of {id} was stored before", request.as_str());
                return Err(StoreError::corrupt(what).into());
            }
        }
        cluster.numbers.last_job = id.0;
        cluster.counts.queued += shape.task_count();
        let row = JobRow::new(id, shape, at);
        self.changes.jobs.insert(id, JobChange { row, submit: Some(submit) });
        Ok(())
    }

    fn attempt_placed(&mut self, attempt: AttemptId, hold: &Hold) -> Result<(), R::Error> {
        let known = self.changes.workers.contains_key(&hold.worker);
        if !known && !self.rows.has_worker(&hold.worker)? {
            let what = format!("{attempt} was placed on unknown worker '{}'", hold.worker);
            return Err(StoreError::corrupt(what).into());
        }
        let numbers = self.changes.cluster.numbers;
        self.step(attempt.task, Step::Placed { no: attempt.no, numbers, hold: hold.clone() })
    }

    fn attempt_lost(
        &mut self,
        attempt: AttemptId,
        cause: LossCause,
        message: &str,
        at: Timestamp,
    ) -> Result<(), R::Error> {
        let (job, position) = self.place(attempt.task)?;
        let change = self.task(job, position)?;
        let (hold, started_at) = match &change.state {
            TaskState::Live(live) => match &live.state {
                LiveState::Running { hold, started_at } => (Some(hold.clone()), Some(*started_at)),
                LiveState::Assigned(hold) => (Some(hold.clone()), None),
                LiveState::Queued(_) => (None, None),
            },
            TaskState::Fresh | TaskState::Ended(_) => (None, None),
        };
        self.step(attempt.task, Step::Lost { no: attempt.no, cause, at })?;
        let hold = hold.ok_or_else(|| StoreError::corrupt(format!("{attempt} had no worker")))?;
        let message = message.to_owned();
        let lost = LostAttempt { no: attempt.no, cause, message, hold, started_at, lost_at: at };
        self.changes.losses.push((job, position, lost));
        Ok(())
    }

    /// Takes one task through one step and keeps the counts right.
    fn step(&mut self, task: TaskId, step: Step) -> Result<(), R::Error> {
        let (job, position) = self.place(task)?;
        let change = self.task(job, position)?;
        let state = std::mem::replace(&mut change.state, TaskState::Fresh);
        let (was_fresh, from) = (state == TaskState::Fresh, state.status());
        let state = transition::next(state, step)
            .map_err(|error| StoreError::corrupt(format!("{task}: {}", inner(&error))))?;
        let to = state.status();
        change.state = state;
        let row = &mut self.job(job)?.row;
        if was_fresh {
            row.take_fresh(position, position, 1)?;
        }
        row.shift(from, to, 1)?;
        self.shift_all(from, to, 1)
    }

    fn fresh_cancelled(
        &mut self,
        id: JobId,
        first: u32,
        last: u32,
        at: Timestamp,
    ) -> Result<(), R::Error> {
        let row = self.job(id)?.row;
        let (low, high) = (first.max(row.fresh_from), last.min(row.shape.span().1));
        if low > high {
            return Ok(());
        }
        let mut parts = Ranges::from_span(low, high);
        let mut placed = 0;
        if !row.fresh_is_whole() {
            for span in self.spans(id)? {
                parts.remove_span(span.first, span.last);
            }
            let positions = self.placed(id, (low, high))?;
            placed = positions.iter().filter(|position| parts.contains(**position)).count() as u64;
        }
        let count = parts.count() - placed;
        if count == 0 {
            return Ok(());
        }
        if low == high {
            let outcome = Outcome { cause: Cause::Cancelled, message: String::new() };
            let state = TaskState::Ended(Ended { outcome, ended_at: at, by: None });
            self.changes.tasks.insert((id, low), TaskChange { state, stored: false });
        } else {
            let spans = parts.spans().map(|(first, last)| CancelledSpan { first, last, at });
            self.changes.spans.extend(spans.map(|span| (id, span)));
        }
        let row = &mut self.job(id)?.row;
        row.take_fresh(low, high, count)?;
        row.shift(TaskStatus::Queued, TaskStatus::Cancelled, count)?;
        self.shift_all(TaskStatus::Queued, TaskStatus::Cancelled, count)
    }

    /// The positions of the span that have a row, this batch included.
    fn placed(&mut self, id: JobId, (low, high): (u32, u32)) -> Result<BTreeSet<u32>, R::Error> {
        let stored = self.rows.positions(id, (low, high))?;
        let mut positions: BTreeSet<u32> = stored.into_iter().collect();
        let new = self.changes.tasks.range((id, low)..=(id, high));
        positions.extend(new.map(|((_, position), _)| *position));
        Ok(positions)
    }

    /// The cancelled spans of a job, this batch included.
    fn spans(&mut self, id: JobId) -> Result<Vec<CancelledSpan>, R::Error> {
        let mut spans = match self.job(id)?.submit {
            Some(_) => Vec::new(),
            None => self.rows.cancelled_spans(id)?,
        };
        let new = self.changes.spans.iter().filter(|(job, _)| *job == id);
        spans.extend(new.map(|(_, span)| *span));
        Ok(spans)
    }

    fn shift_all(&mut self, from: TaskStatus, to: TaskStatus, count: u64) -> Result<(), R::Error> {
        let moved = self.changes.cluster.counts.shift(from, to, count);
        let error =
            || StoreError::corrupt(format!("the cluster has too few tasks {}", from.name()));
        Ok(moved.ok_or_else(error)?)
    }

    /// The job and the position of a task, checked against the job's shape.
    fn place(&mut self, task: TaskId) -> Result<(JobId, u32), R::Error> {
        let shape = self.job(task.job)?.row.shape;
        let position = shape.find_position(task);
        let position = position.ok_or_else(|| {
            StoreError::corrupt(format!("{task} is not a task of its job, which is {shape:?}"))
        })?;
        Ok((task.job, position))
    }

    fn job(&mut self, id: JobId) -> Result<&mut JobChange, R::Error> {
        match self.changes.jobs.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let row = self.rows.find_job(id)?;
                let row = row.ok_or_else(|| StoreError::corrupt(format!("there is no {id}")))?;
                Ok(entry.insert(JobChange { row, submit: None }))
            }
        }
    }

    /// A task as this batch left it so far. A position that was never placed is looked up only
    /// when the job's fresh range has holes.
    fn task(&mut self, job: JobId, position: u32) -> Result<&mut TaskChange, R::Error> {
        let row = self.job(job)?.row;
        let spans = if row.fresh_is_whole() { Vec::new() } else { self.spans(job)? };
        match self.changes.tasks.entry((job, position)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let surely_fresh = row.fresh_is_whole() && position >= row.fresh_from;
                let stored =
                    if surely_fresh { None } else { self.rows.find_task(job, position)? };
                let in_span = |span: &CancelledSpan| (span.first..=span.last).contains(&position);
                let change = match stored {
                    Some(state) => TaskChange { state, stored: true },
                    None if position < row.fresh_from || spans.iter().any(in_span) => {
                        let what = format!("position {position} of {job} was cancelled before");
                        return Err(StoreError::corrupt(what).into());
                    }
                    None => TaskChange { state: TaskState::Fresh, stored: false },
                };
                Ok(entry.insert(change))
            }
        }
    }
}

/// The text of a refusal without the words around it, which are added once.
fn inner(error: &StoreError) -> String {
    match error {
        StoreError::Corrupt(what) => what.clone(),
        other => other.to_string(),
    }
}
