//! A store that forgets: for tests and for simulations. It keeps the same rows as the others, so
//! that the same logic reads and writes them; handles on one data share it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloudai_model::{
    Event, JobId, JobShape, Journal, LiveTask, RequestId, Snapshot, TaskId, TaskRecord, TaskSpec,
    TaskState, TaskStatus, WorkerId, WorkerRecord,
};

use crate::rows::{CancelledSpan, Cluster, JobRow, Order, Rows, SpecNo, Walk, Which};
use crate::turn::{self, Changes};
use crate::{
    JobPage, JobQuery, JobView, LostAttempt, Reader, StatusCounts, Store, StoreError, TaskPage,
    TaskQuery, page, view,
};

/// A store in memory. A clone is a handle on the same data, as a second opening of a file would
/// be; it must not be used to write at the same time.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
}

#[derive(Debug, Default)]
struct Data {
    cluster: Cluster,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    specs: Vec<Arc<TaskSpec>>,
    spec_nos: BTreeMap<Arc<TaskSpec>, SpecNo>,
    jobs: BTreeMap<JobId, (JobRow, Option<RequestId>)>,
    requests: BTreeMap<RequestId, JobId>,
    tasks: BTreeMap<(JobId, u32), TaskState>,
    spans: BTreeMap<(JobId, u32), CancelledSpan>,
    losses: BTreeMap<(JobId, u32), Vec<LostAttempt>>,
}

impl MemoryStore {
    /// A writer that panicked left nothing half done: changes are made before they are written.
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryStore {
    type Error = StoreError;

    fn commit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let mut data = self.data();
        let changes = turn::changes(&mut *data, events)?;
        data.write(changes);
        Ok(())
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        view::load(&mut *self.data())
    }

    fn find_request(
        &mut self,
        request: &RequestId,
    ) -> Result<Option<(JobId, JobShape)>, StoreError> {
        Ok(self.data().find_request(request)?.map(|job| (job.id, job.shape)))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        "memory (nothing is kept)".to_owned()
    }
}

impl Reader for MemoryStore {
    fn find_task(&mut self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        view::find_task(&mut *self.data(), task)
    }

    fn find_job(&mut self, job: JobId) -> Result<Option<JobView>, StoreError> {
        view::find_job(&mut *self.data(), job)
    }

    fn jobs(&mut self, query: &JobQuery) -> Result<JobPage, StoreError> {
        page::jobs(&mut *self.data(), query)
    }

    fn tasks(&mut self, query: &TaskQuery) -> Result<TaskPage, StoreError> {
        page::tasks(&mut *self.data(), query)
    }

    fn counts(&mut self) -> Result<StatusCounts, StoreError> {
        Ok(self.data().cluster.counts)
    }

    fn attempts(&mut self, task: TaskId) -> Result<Vec<LostAttempt>, StoreError> {
        view::attempts(&mut *self.data(), task)
    }
}

impl Data {
    fn write(&mut self, changes: Changes) {
        self.cluster = changes.cluster;
        self.workers.extend(changes.workers);
        for (id, change) in changes.jobs {
            let (mut row, mut request) = (change.row, None);
            if let Some(submit) = change.submit {
                row.spec = self.intern(&submit.spec);
                request = submit.request;
            } else if let Some((_, stored)) = self.jobs.remove(&id) {
                request = stored;
            }
            if let Some(request) = &request {
                self.requests.insert(request.clone(), id);
            }
            self.jobs.insert(id, (row, request));
        }
        self.tasks.extend(changes.tasks.into_iter().map(|(key, change)| (key, change.state)));
        self.spans.extend(changes.spans.into_iter().map(|(job, span)| ((job, span.first), span)));
        for (job, position, lost) in changes.losses {
            self.losses.entry((job, position)).or_default().push(lost);
        }
    }

    fn intern(&mut self, spec: &Arc<TaskSpec>) -> SpecNo {
        if let Some(no) = self.spec_nos.get(spec) {
            return *no;
        }
        let no = SpecNo(i64::try_from(self.specs.len()).unwrap_or(i64::MAX));
        self.specs.push(Arc::clone(spec));
        self.spec_nos.insert(Arc::clone(spec), no);
        no
    }

    fn has_live(&self, job: JobId) -> bool {
        let mut rows = self.tasks.range((job, 0)..=(job, u32::MAX));
        rows.any(|(_, state)| matches!(state, TaskState::Live(_)))
    }

    fn passes(&self, walk: Walk, row: &JobRow) -> bool {
        match walk {
            Walk::All => true,
            Walk::Open => row.is_open(),
            Walk::Live => self.has_live(row.id),
            Walk::Unsuccessful => row.counts.failed + row.counts.cancelled > 0,
        }
    }
}

fn is_in(which: Which, state: &TaskState) -> bool {
    match which {
        Which::All => true,
        Which::Live => matches!(state, TaskState::Live(_)),
        Which::Unsuccessful => {
            matches!(state.status(), TaskStatus::Failed | TaskStatus::Cancelled)
        }
    }
}

impl Rows for Data {
    type Error = StoreError;

    fn cluster(&mut self) -> Result<Cluster, StoreError> {
        Ok(self.cluster)
    }

    fn workers(&mut self) -> Result<Vec<WorkerRecord>, StoreError> {
        Ok(self.workers.values().cloned().collect())
    }

    fn has_worker(&mut self, worker: &WorkerId) -> Result<bool, StoreError> {
        Ok(self.workers.contains_key(worker))
    }

    fn spec(&mut self, no: SpecNo) -> Result<Arc<TaskSpec>, StoreError> {
        let spec = usize::try_from(no.0).ok().and_then(|no| self.specs.get(no));
        spec.cloned().ok_or_else(|| StoreError::corrupt(format!("there is no {no:?}")))
    }

    fn find_job(&mut self, job: JobId) -> Result<Option<JobRow>, StoreError> {
        Ok(self.jobs.get(&job).map(|(row, _)| *row))
    }

    fn find_request(&mut self, request: &RequestId) -> Result<Option<JobRow>, StoreError> {
        self.requests.get(request).copied().map_or(Ok(None), |job| self.find_job(job))
    }

    fn next_job(
        &mut self,
        walk: Walk,
        after: Option<JobId>,
        order: Order,
    ) -> Result<Option<JobRow>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let edge = after.map_or(Unbounded, Excluded);
        let rows = |(row, _): &(JobRow, Option<RequestId>)| *row;
        let passes = |row: &JobRow| self.passes(walk, row);
        Ok(match order {
            Order::Up => self.jobs.range((edge, Unbounded)).map(|(_, job)| rows(job)).find(passes),
            Order::Down => {
                self.jobs.range((Unbounded, edge)).rev().map(|(_, job)| rows(job)).find(passes)
            }
        })
    }

    fn open_jobs(
        &mut self,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<(JobRow, Option<RequestId>)>, StoreError> {
        let above = self.jobs.range(after.map_or(JobId(0), |job| JobId(job.0 + 1))..);
        let open = above.map(|(_, job)| job).filter(|(row, _)| row.is_open());
        Ok(open.take(limit).cloned().collect())
    }

    fn live_tasks(
        &mut self,
        after: Option<(JobId, u32)>,
        limit: usize,
    ) -> Result<Vec<(JobId, u32, LiveTask)>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let above = self.tasks.range((after.map_or(Unbounded, Excluded), Unbounded));
        let live = above.filter_map(|((job, position), state)| match state {
            TaskState::Live(live) => Some((*job, *position, live.clone())),
            TaskState::Fresh | TaskState::Ended(_) => None,
        });
        Ok(live.take(limit).collect())
    }

    fn find_task(&mut self, job: JobId, position: u32) -> Result<Option<TaskState>, StoreError> {
        Ok(self.tasks.get(&(job, position)).cloned())
    }

    fn tasks(
        &mut self,
        job: JobId,
        which: Which,
        (low, high): (u32, u32),
        order: Order,
        limit: usize,
    ) -> Result<Vec<(u32, TaskState)>, StoreError> {
        let rows = self.tasks.range((job, low)..=(job, high));
        let rows = rows.filter(|(_, state)| is_in(which, state));
        let rows = rows.map(|((_, position), state)| (*position, state.clone()));
        Ok(match order {
            Order::Up => rows.take(limit).collect(),
            Order::Down => rows.rev().take(limit).collect(),
        })
    }

    fn positions(&mut self, job: JobId, (low, high): (u32, u32)) -> Result<Vec<u32>, StoreError> {
        let rows = self.tasks.range((job, low)..=(job, high));
        Ok(rows.map(|((_, position), _)| *position).collect())
    }

    fn cancelled_spans(&mut self, job: JobId) -> Result<Vec<CancelledSpan>, StoreError> {
        let spans = self.spans.range((job, 0)..=(job, u32::MAX));
        Ok(spans.map(|(_, span)| *span).collect())
    }

    fn attempts(&mut self, job: JobId, position: u32) -> Result<Vec<LostAttempt>, StoreError> {
        Ok(self.losses.get(&(job, position)).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryStore;
    use crate::conformance::{Backend, conformance};
    use crate::{Store, StoreError};

    impl Backend for MemoryStore {
        fn new() -> Self {
            Self::default()
        }

        fn open(&self) -> Box<dyn Store> {
            Box::new(self.clone())
        }
    }

    conformance!(MemoryStore);

    #[test]
    fn a_corrupt_error_says_what_and_what_to_do() {
        let text = StoreError::corrupt("x").to_string();
        assert!(text.starts_with("the store is inconsistent: x."), "{text}");
    }
}
