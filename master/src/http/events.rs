//! What happens now, for people who watch: server-sent events. A change only says what moved; the
//! words come from the store and from the heart's view, looked at once for a whole burst. A
//! watcher that is too slow gets a `gap`, never an unbounded queue.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use cloudai_api::{ClusterEvent, ErrorBody};
use cloudai_database::{JobView, Reader, StoreError};
use cloudai_master_core::ClusterView;
use cloudai_model::{
    Cause, JobId, LiveState, Session, TaskId, TaskRecord, TaskState, TaskStatus, Timestamp,
    WorkerId,
};
use cloudai_scheduler::Standing;
use futures_util::{Stream, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::errors::Failure;
use super::{App, wait};
use crate::clock;
use crate::heart::Change;

/// Most changes that are looked up at once.
const BURST_MAX: usize = 256;
/// How long changes are gathered: what moves twice meanwhile is told once.
const GATHER: Duration = Duration::from_millis(20);
/// How long the stream may be silent before it shows that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Streams what happens, as server-sent events, each a `ClusterEvent`, until the client goes.
#[utoipa::path(
    get, path = "/events", tag = "cluster", operation_id = "watchEvents",
    responses(
        (status = 200, body = ClusterEvent, content_type = "text/event-stream"),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn events(
    State(app): State<App>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let place = wait::place(&app)?;
    let changes = app.heart.watch();
    let view = app.heart.view().await?;
    let feed =
        Feed { app, changes, workers: workers_of(&view), told: VecDeque::new(), _place: place };
    let stream = stream::unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        let data = serde_json::to_string(&event).unwrap_or_default();
        Some((Ok(Event::default().event(event.kind).data(data)), feed))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}

/// A worker's registration, and the kind of event that says how it stands.
type WorkerMark = (Session, &'static str);

fn workers_of(view: &ClusterView) -> BTreeMap<WorkerId, WorkerMark> {
    let mark = |worker: &cloudai_master_core::WorkerStatus| {
        (worker.record.id.clone(), (worker.record.session, kind_of(&worker.standing)))
    };
    view.workers.iter().map(mark).collect()
}

const fn kind_of(standing: &Standing) -> &'static str {
    match standing {
        Standing::Active => "worker_active",
        Standing::Inactive => "worker_inactive",
        Standing::Degraded(_) => "worker_degraded",
        Standing::PutAside(_) => "worker_put_aside",
    }
}

fn words_of(standing: &Standing) -> String {
    match standing {
        Standing::Active => "is active again".to_owned(),
        Standing::Inactive => "was not heard for a while and counts as inactive".to_owned(),
        Standing::Degraded(why) => format!("is degraded and gets no new work: {why}"),
        Standing::PutAside(why) => format!("is put aside {why}"),
    }
}

/// One watcher.
struct Feed {
    app: App,
    changes: Receiver<Change>,
    /// The workers as this watcher was told of them.
    workers: BTreeMap<WorkerId, WorkerMark>,
    /// Ready to be sent.
    told: VecDeque<ClusterEvent>,
    _place: OwnedSemaphorePermit,
}

/// Changes of a short while, each thing once, in the order in which it moved first.
#[derive(Default)]
struct Burst {
    tasks: Vec<TaskId>,
    jobs: Vec<JobId>,
    workers: bool,
    missed: u64,
}

impl Burst {
    fn add(&mut self, change: &Change) {
        match *change {
            Change::Task(task) if !self.tasks.contains(&task) => self.tasks.push(task),
            Change::Job(job) if !self.jobs.contains(&job) => self.jobs.push(job),
            Change::Task(_) | Change::Job(_) => {}
            Change::Worker(_) => self.workers = true,
        }
    }
}

impl Feed {
    /// The next event; `None` when the master stops.
    async fn next(&mut self) -> Option<ClusterEvent> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Some(event);
            }
            let burst = self.gather().await?;
            if let Err(failure) = self.tell(burst).await {
                let words = &failure.body().error.message;
                self.told.push_back(event("gap", clock::wall(), words.clone()));
                // A store that fails does so for a while; it is not asked again at once.
                tokio::time::sleep(SIGN_OF_LIFE).await;
            }
        }
    }

    async fn gather(&mut self) -> Option<Burst> {
        let mut burst = Burst::default();
        let first = tokio::select! {
            change = self.changes.recv() => change,
            () = self.app.shutdown.cancelled() => return None,
        };
        match first {
            Ok(change) => burst.add(&change),
            Err(RecvError::Lagged(count)) => burst.missed += count,
            Err(RecvError::Closed) => return None,
        }
        tokio::time::sleep(GATHER).await;
        for _ in 0..BURST_MAX {
            match self.changes.try_recv() {
                Ok(change) => burst.add(&change),
                Err(TryRecvError::Lagged(count)) => burst.missed += count,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(burst)
    }

    async fn tell(&mut self, burst: Burst) -> Result<(), Failure> {
        if burst.missed > 0 {
            let words = format!("{} changes came too fast to be shown", burst.missed);
            self.told.push_back(event("gap", clock::wall(), words));
        }
        if burst.workers || burst.missed > 0 {
            self.tell_workers().await?;
        }
        let Burst { tasks, jobs, .. } = burst;
        let look = move |reader: &mut dyn Reader| look(reader, &jobs, &tasks);
        self.told.extend(self.app.readers.read(look).await?);
        Ok(())
    }

    async fn tell_workers(&mut self) -> Result<(), Failure> {
        let view = self.app.heart.view().await?;
        for worker in &view.workers {
            let (id, kind) = (&worker.record.id, kind_of(&worker.standing));
            let (kind, words) = match self.workers.get(id) {
                Some((before, _)) if *before != worker.record.session => {
                    ("worker_registered", "registered again".to_owned())
                }
                None => ("worker_registered", "registered".to_owned()),
                Some((_, before)) if *before == kind => continue,
                Some(_) => (kind, words_of(&worker.standing)),
            };
            let mut event = event(kind, clock::wall(), format!("{id} {words}"));
            event.worker = Some(id.to_string());
            self.told.push_back(event);
        }
        self.workers = workers_of(&view);
        Ok(())
    }
}

fn event(kind: &str, at: Timestamp, text: String) -> ClusterEvent {
    ClusterEvent { at_ms: at.unix_ms(), kind: kind.to_owned(), task: None, worker: None, text }
}

fn look(
    reader: &mut dyn Reader,
    jobs: &[JobId],
    tasks: &[TaskId],
) -> Result<Vec<ClusterEvent>, StoreError> {
    let mut told = Vec::with_capacity(jobs.len() + tasks.len());
    for job in jobs {
        told.extend(reader.find_job(*job)?.map(|job| of_job(&job)));
    }
    for task in tasks {
        let Some(record) = reader.find_task(*task)? else { continue };
        if record.state == TaskState::Fresh {
            told.extend(reader.find_job(task.job)?.map(|job| of_submit(&job, *task)));
        } else {
            told.push(of_task(&record));
        }
    }
    Ok(told)
}

/// Many tasks of a job move at once only when they are cancelled.
fn of_job(job: &JobView) -> ClusterEvent {
    let (cancelled, total) = (job.counts.cancelled, job.shape.task_count());
    let text = format!("{}: {cancelled} of {total} tasks are cancelled", job.id);
    event("task_cancelled", clock::wall(), text)
}

fn of_submit(job: &JobView, first: TaskId) -> ClusterEvent {
    let image = &job.spec.image;
    let text = match job.shape.task_count() {
        1 => format!("{first} was submitted: {image}"),
        count => format!("{} was submitted: {count} tasks of {image}", job.id),
    };
    ClusterEvent { task: Some(first.to_string()), ..event("job_submitted", job.submitted_at, text) }
}

fn of_task(record: &TaskRecord) -> ClusterEvent {
    let task = record.id;
    let now = clock::wall();
    let (mut made, hold) = match &record.state {
        TaskState::Fresh => (event("job_submitted", record.submitted_at, format!("{task}")), None),
        TaskState::Live(live) => match &live.state {
            LiveState::Queued(queued) => {
                let words = format!("an attempt of {task} was lost; it is tried again");
                (event("attempt_lost", queued.lost_at, words), None)
            }
            LiveState::Assigned(hold) => {
                let words = format!("{task} was given to {}", hold.worker);
                (event("attempt_placed", hold.placed_at, words), Some(hold))
            }
            LiveState::Running { hold, .. } => {
                let words = format!("{task} runs on {}", hold.worker);
                (event("attempt_started", now, words), Some(hold))
            }
        },
        TaskState::Ended(end) => {
            let hold = end.by.as_ref().map(|by| &by.hold);
            let kind = match record.status() {
                TaskStatus::Cancelled => "task_cancelled",
                _ => "task_finished",
            };
            let place = hold.map(|hold| format!(" on {}", hold.worker)).unwrap_or_default();
            let how = match end.outcome.cause {
                Cause::Exit(0) => "succeeded".to_owned(),
                Cause::Cancelled => "was cancelled".to_owned(),
                cause => format!("failed ({cause})"),
            };
            (event(kind, end.ended_at, format!("{task} {how}{place}")), hold)
        }
    };
    made.task = Some(task.to_string());
    made.worker = hold.map(|hold| hold.worker.to_string());
    made
}
