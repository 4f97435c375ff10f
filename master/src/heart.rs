//! The one thread that owns the core and the store.
//!
//! A turn: drain the inbox, step each command, plan once if something changed, store everything in
//! one transaction, and only then carry out the effects. If the store fails, everybody who waits is
//! told so, the core is thrown away and made again from the store: it never goes on with a
//! half-true memory.
//!
//! **Architecture Invariant:** nobody else holds the core or the writing side of the store. What
//! readers need of the live part is made here, on request, after the commit.

mod agent_gate;
mod console;
mod points;
mod room;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;
use std::thread::JoinHandle;

use cloudai_database::{Store, StoreError};
use cloudai_master_core::{
    Answer, ClusterView, Command, Core, Explanation, PendingTask, RestoreError, Settings,
};
use cloudai_model::{JobId, Session, Snapshot, TaskId, WorkerId};
use cloudai_proto::convert::Orders;
use cloudai_scheduler::Policy;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::dispatch::Link;
use turn::Heart;

/// Most messages that wait for the heart; a submit beyond it is told to come back later.
pub(crate) const INBOX_LEN_MAX: usize = 4_096;
/// Most changes that a slow watcher may be behind before it has to look again.
const CHANGES_LEN_MAX: usize = 4_096;

/// Why the heart did not take or keep a command.
#[derive(Debug, Clone, Error)]
pub(crate) enum HeartError {
    /// The inbox is full.
    #[error("the master has as much to do as it can hold; try again in a moment")]
    Busy,
    /// The master is stopping.
    #[error("the master is stopping")]
    Stopped,
    /// Another stream of the same worker has taken this one's place.
    #[error("a newer connection of this worker has taken over")]
    Replaced,
    /// The store has no room. Nothing was accepted.
    #[error("{0}")]
    StorageFull(String),
    /// The store failed. Nothing was accepted.
    #[error("{0}")]
    Storage(String),
}

impl HeartError {
    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::StorageFull(error.to_string()),
            other => Self::Storage(other.to_string()),
        }
    }
}

/// The store cannot be used, or what it holds cannot be.
#[derive(Debug, Error)]
pub enum StartError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No master can have written what it holds.
    #[error(
        "the store is inconsistent: {0}. Nothing was changed. Restore a backup with 'cloudai \
         restore BACKUP --data-dir NEW' and start the master there; keep a copy of this data \
         directory and report it"
    )]
    Restore(#[from] RestoreError),
    /// The system gave no thread.
    #[error("cannot start the master's main thread")]
    Thread(#[source] std::io::Error),
}

/// Something moved; look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A task.
    Task(TaskId),
    /// Many tasks of a job at once.
    Job(JobId),
    /// A worker came, went or came back.
    Worker(WorkerId),
}

/// The link over which something came.
pub(crate) type Via = mpsc::WeakSender<Orders>;
type Reply<T> = oneshot::Sender<Result<T, HeartError>>;

/// What the heart is asked.
enum Message {
    Command {
        command: Command,
        reply: Option<Reply<Answer>>,
        link: Option<Link>,
    },
    /// A report that came over a link, which is gone when another took its place.
    Report(Command, Via, Reply<Answer>),
    /// A link to a worker that need not say hello.
    Attach(Session, Link),
    View(Reply<Arc<ClusterView>>),
    Explain(TaskId, Reply<Option<Explanation>>),
    Pending(usize, Reply<Vec<PendingTask>>),
    Stop,
}

/// How everybody else speaks to the heart.
#[derive(Debug, Clone)]
pub(crate) struct HeartHandle {
    inbox: mpsc::Sender<Message>,
    changes: broadcast::Sender<Change>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Command { .. } => "Command",
            Self::Report(..) => "Report",
            Self::Attach(..) => "Attach",
            Self::View(_) => "View",
            Self::Explain(..) => "Explain",
            Self::Pending(..) => "Pending",
            Self::Stop => "Stop",
        })
    }
}

impl HeartHandle {
    /// Gives a command and waits until what it came to is stored.
    pub(crate) async fn command(&self, command: Command) -> Result<Answer, HeartError> {
        self.ask(|reply| Message::Command { command, reply: Some(reply), link: None }).await
    }

    /// As [`HeartHandle::command`], but refuses at once when the inbox is full.
    pub(crate) async fn try_command(&self, command: Command) -> Result<Answer, HeartError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Command { command, reply: Some(reply), link: None };
        self.inbox.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HeartError::Busy,
            mpsc::error::TrySendError::Closed(_) => HeartError::Stopped,
        })?;
        answer.await.unwrap_or(Err(HeartError::Stopped))
    }

    /// Gives a worker's hello together with the link on which it is to be reached from now on.
    pub(crate) async fn hello(&self, command: Command, link: Link) -> Result<Answer, HeartError> {
        self.ask(|reply| Message::Command { command, reply: Some(reply), link: Some(link) }).await
    }

    /// Gives a report of a session. What an older stream of the same session still has to say is
    /// refused once a newer one stands: it would be taken for the present state.
    pub(crate) async fn report(&self, report: Command, via: Via) -> Result<Answer, HeartError> {
        self.ask(|reply| Message::Report(report, via, reply)).await
    }

    /// The worker of this session is reached over this link, unless it has one.
    pub(crate) async fn attach(&self, session: Session, link: Link) {
        // A heart that has stopped sends nothing any more.
        drop(self.inbox.send(Message::Attach(session, link)).await);
    }

    /// The cluster as it is now, after everything that was asked before.
    pub(crate) async fn view(&self) -> Result<Arc<ClusterView>, HeartError> {
        self.ask(Message::View).await
    }

    /// Why a task does not run; `None` when it is not live.
    pub(crate) async fn explain(&self, task: TaskId) -> Result<Option<Explanation>, HeartError> {
        self.ask(|reply| Message::Explain(task, reply)).await
    }

    /// Waiting tasks in queue order, at most `count`.
    pub(crate) async fn pending(&self, count: usize) -> Result<Vec<PendingTask>, HeartError> {
        self.ask(|reply| Message::Pending(count, reply)).await
    }

    /// Every change from now on. A watcher that falls behind is told so, and looks again.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Asks the heart to end after its present turn.
    pub(crate) async fn stop(&self) {
        // An inbox that is closed belongs to a heart that has ended.
        drop(self.inbox.send(Message::Stop).await);
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, HeartError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).await.map_err(|_| HeartError::Stopped)?;
        answer.await.unwrap_or(Err(HeartError::Stopped))
    }
}

/// What the heart needs besides the store.
pub(crate) struct HeartSettings {
    pub(crate) core: Settings,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) agent_deadline_ms: Option<u64>,
}

/// What an operator wants to read after a crash: how much there is to go on with.
fn tell_restored(snapshot: &Snapshot) {
    if snapshot.jobs.is_empty() {
        return;
    }
    let live = || snapshot.jobs.values().flat_map(|job| job.live.values());
    let held = live().filter(|task| task.find_hold().is_some()).count();
    let fresh: u64 = snapshot.jobs.values().map(|job| job.fresh.count()).sum();
    let waiting = fresh + (live().count() - held) as u64;
    let jobs = snapshot.jobs.len();
    tracing::info!("Restored: open jobs {jobs}, waiting tasks {waiting}, on workers {held}");
}

/// Restores the core and starts the thread. The thread ends when it is told to stop; the store is
/// closed when it is joined. However it ends, `shutdown` is cancelled: without it there is no
/// master.
pub(crate) fn start(
    mut store: Box<dyn Store>,
    settings: HeartSettings,
    shutdown: CancellationToken,
) -> Result<(HeartHandle, JoinHandle<Result<(), StartError>>), StartError> {
    let snapshot = store.load()?;
    tell_restored(&snapshot);
    let core = Core::restore(snapshot, settings.core, clock::now())?;
    let (inbox, messages) = mpsc::channel(INBOX_LEN_MAX);
    let (changes, _) = broadcast::channel(CHANGES_LEN_MAX);
    let heart = Heart::new(core, store, settings, changes.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(StartError::Thread)?;
    let thread = std::thread::Builder::new()
        .name("heart".to_owned())
        .spawn(move || {
            let _ends_all = shutdown.drop_guard();
            runtime.block_on(heart.run(messages))
        })
        .map_err(StartError::Thread)?;
    Ok((HeartHandle { inbox, changes }, thread))
}
