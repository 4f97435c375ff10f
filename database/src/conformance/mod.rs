//! What every backend must keep. A backend's tests say `conformance!(ItsBackend);` and get one
//! test for each promise; `reference.rs` is the second, simpler truth that they are held against.

mod random;
mod reference;
mod suite;

use cloudai_model::{
    AttemptId, AttemptNo, Event, Hold, JobId, JobShape, LossCause, Outcome, RequestId, Resources,
    Session, TaskId, TaskRecord, TaskSpec, Timestamp, WorkerId, WorkerKind, WorkerRecord,
};

pub(crate) use random::random_histories_are_kept;
pub(crate) use suite::*;

use self::reference::Reference;
use crate::{Reader, Store, TaskQuery};

/// A place for one store, which can be opened again after it was closed.
pub(crate) trait Backend {
    fn new() -> Self;
    fn open(&self) -> Box<dyn Store>;
}

/// One test for each promise.
macro_rules! conformance {
    ($backend:ty) => {
        $crate::conformance::conformance!(
            $backend:
            an_empty_store_loads_as_nothing,
            a_task_is_seen_at_every_step_of_its_life,
            a_refused_batch_leaves_no_trace,
            what_cannot_happen_is_refused,
            a_request_finds_its_job_for_ever,
            equal_specs_are_shared,
            spans_are_cancelled_around_what_was_placed,
            a_task_alone_can_be_cancelled_before_it_is_placed,
            an_array_of_a_million_costs_no_more_than_one,
            pages_end_where_the_tasks_end,
            filters_find_what_they_name,
            a_rare_match_is_found_by_following_short_pages,
            jobs_are_listed_newest_first,
            lost_attempts_are_remembered,
            a_reader_sees_each_commit_and_nothing_else,
            random_histories_are_kept,
        );
    };
    ($backend:ty: $($promise:ident,)*) => {
        $(
            #[test]
            fn $promise() {
                $crate::conformance::$promise::<$backend>();
            }
        )*
    };
}
pub(crate) use conformance;

/// A store beside the reference, with the same events in both.
pub(crate) struct Pair<B> {
    backend: B,
    store: Option<Box<dyn Store>>,
    reference: Reference,
}

impl<B: Backend> Pair<B> {
    fn new() -> Self {
        let backend = B::new();
        let store = Some(backend.open());
        Self { backend, store, reference: Reference::default() }
    }

    fn store(&mut self) -> &mut dyn Store {
        &mut **self.store.as_mut().unwrap()
    }

    fn reader(&mut self) -> Box<dyn Reader> {
        self.store().reader().unwrap()
    }

    /// Commits one batch and checks that the store loads as the reference says.
    fn commit(&mut self, events: &[Event]) {
        self.store().commit(events).unwrap();
        for event in events {
            self.reference.apply(event);
        }
        let want = self.reference.snapshot();
        assert_eq!(self.store().load().unwrap(), want, "after {events:?}");
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.backend.open());
        assert_eq!(self.store().load().unwrap(), self.reference.snapshot());
    }

    /// Checks that this query, page by page, gives what the reference gives at once.
    fn check(&mut self, query: &TaskQuery) {
        let got = pages(&mut *self.reader(), query);
        assert_eq!(got, self.reference.list(query), "{query:?}");
    }

    /// Checks everything that a reader can ask about each task and job.
    fn check_all(&mut self) {
        let mut reader = self.reader();
        for record in self.reference.list(&TaskQuery::default()) {
            assert_eq!(reader.find_task(record.id).unwrap().as_ref(), Some(&record));
            let lost = self.reference.attempts(record.id);
            assert_eq!(reader.attempts(record.id).unwrap(), lost);
        }
        assert_eq!(reader.counts().unwrap(), self.reference.counts(None));
        for job in self.reference.jobs() {
            let view = reader.find_job(job).unwrap().unwrap();
            assert_eq!(view.counts, self.reference.counts(Some(job)), "{job}");
        }
        self.check(&TaskQuery { limit: 7, ..TaskQuery::default() });
        self.check(&TaskQuery { limit: 3, newest_first: true, ..TaskQuery::default() });
    }
}

/// All records of a query, page by page.
fn pages(reader: &mut dyn Reader, query: &TaskQuery) -> Vec<TaskRecord> {
    let mut query = query.clone();
    let mut records = Vec::new();
    loop {
        let page = reader.tasks(&query).unwrap();
        assert!(page.records.len() <= query.limit.clamp(1, crate::PAGE_LEN_MAX));
        records.extend(page.records);
        let Some(next) = page.next else { return records };
        assert_ne!(Some(next), query.after, "a page that goes nowhere");
        query.after = Some(next);
    }
}

fn spec(image: &str) -> TaskSpec {
    TaskSpec::new(image, TaskSpec::DEFAULT_NEEDS)
}

fn array(first: u32, last: u32) -> JobShape {
    JobShape::Array { first, last, at_once_max: None }
}

fn registered(worker: &str, session: u64) -> Event {
    Event::WorkerRegistered {
        worker: WorkerRecord {
            id: WorkerId::new(worker).unwrap(),
            session: Session(session),
            kind: if session.is_multiple_of(2) { WorkerKind::Unary } else { WorkerKind::Session },
            address: format!("localhost:{}", 50_052 + session),
            capacity: Resources { gpu_milli: session, ..TaskSpec::DEFAULT_NEEDS },
            volumes: ["data".to_owned(), "models".to_owned()].into(),
            version: "0.1.0".to_owned(),
            registered_at: Timestamp(session * 10),
        },
    }
}

fn submitted(job: u64, spec: TaskSpec, shape: JobShape, request: Option<&str>) -> Event {
    Event::JobSubmitted {
        job: JobId(job),
        spec: spec.into(),
        shape,
        request: request.map(|text| RequestId::new(text).unwrap()),
        at: Timestamp(1_000 + job),
    }
}

fn attempt(task: TaskId, no: u32) -> AttemptId {
    AttemptId { task, no: AttemptNo(no) }
}

fn placed(task: TaskId, no: u32, worker: &str, session: u64) -> Event {
    let worker = WorkerId::new(worker).unwrap();
    let placed_at = Timestamp(2_000 + u64::from(no));
    let hold = Hold { worker, session: Session(session), placed_at };
    Event::AttemptPlaced { attempt: attempt(task, no), hold }
}

fn started(task: TaskId, no: u32) -> Event {
    Event::AttemptStarted { attempt: attempt(task, no), at: Timestamp(3_000 + u64::from(no)) }
}

fn lost(task: TaskId, no: u32, cause: LossCause) -> Event {
    let message = format!("loss {no}");
    Event::AttemptLost { attempt: attempt(task, no), cause, message, at: Timestamp(4_000) }
}

fn finished(task: TaskId, no: u32, outcome: Outcome) -> Event {
    let (finished_at, at) = (Timestamp(5_000), Timestamp(5_001));
    Event::TaskFinished { attempt: attempt(task, no), outcome, finished_at, at }
}

fn fresh_cancelled(job: u64, first: u32, last: u32) -> Event {
    Event::FreshCancelled { job: JobId(job), first, last, at: Timestamp(6_000 + u64::from(first)) }
}
