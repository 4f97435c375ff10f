//! The way of one attempt: prepare, create, start, wait, collect, keep, remove. Forward only; each
//! step either goes on or gives the outcome, and whatever the outcome, what was created is removed.
//!
//! The life of an attempt is a task of its own: nobody can drop it between a create and the
//! knowledge of the container's id. It must never report an end by itself before the engine said
//! that the container is not running, and never guess a cause from an exit code.
//!
//! Here is the way as a whole, and its end; `life/start.rs` is the part up to a container that
//! runs, `wait.rs` the part until it does not, and `life/collect.rs` what is made of that.

mod collect;
mod end;
mod start;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloudai_failpoint::failpoint;
use cloudai_model::{Cause, Outcome, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::start::Started;
use super::find::Found;
use super::gpu::GpuHold;
use super::keep::Kept;
use super::log::{Frames, LogCopy};
use super::remove;
use super::wait::{Finish, Stop, Waited, Waiter};
use super::{Begin, Shared};
use crate::clock;
use crate::executor::{Assignment, AttemptRecord, BegunStop, Ended, Progress, RunChannels};

/// How long the end of an attempt waits for the removal of its container, which has ended.
const REMOVE_PATIENCE: Duration = Duration::from_secs(20);

/// One attempt on its way.
struct Life {
    shared: Arc<Shared>,
    assignment: Assignment,
    progress: mpsc::Sender<Progress>,
    log: LogCopy,
    stop: Stop,
    output_dir: PathBuf,
    /// Whether its container was asked to start and is not known to have ended.
    may_run: bool,
    record: AttemptRecord,
    gpus: Option<GpuHold>,
    /// Its container, as soon as there is one.
    container: Option<String>,
    started_at: Option<Timestamp>,
    /// Whether an earlier process may have done a part of this.
    is_resumed: bool,
}

/// Takes an attempt from its image, or from where an earlier process left it, to its removal.
pub(super) async fn live(
    shared: Arc<Shared>,
    assignment: Assignment,
    channels: RunChannels,
    begin: Begin,
    abandoned: CancellationToken,
) -> Ended {
    let RunChannels { progress, log, stop, output_dir, record } = channels;
    let mut life = Life {
        log: LogCopy::new(log, &shared.features),
        stop: Stop::new(stop, abandoned),
        shared,
        assignment,
        progress,
        output_dir,
        record,
        gpus: None,
        container: None,
        started_at: None,
        may_run: false,
        is_resumed: !matches!(begin, Begin::New),
    };
    let ended = life.forward(begin).await.unwrap_or_else(|outcome| Ended {
        outcome: life.or_stopped(outcome),
        started_at: life.started_at,
        at: clock::wall(),
        files: Vec::new(),
    });
    let finished = life.log.finish().await;
    if ended.outcome.cause == Cause::Infra {
        life.shared.suspicion.notify_one();
    }
    let (attempt, outcome) = (life.assignment.attempt, &ended.outcome);
    tracing::info!(%attempt, "Container completed: {} {}", outcome.cause, outcome.message);
    failpoint!("worker.ended.before_record");
    let recorded = match finished {
        Ok(()) => life.record.ended(&ended).await,
        // The next process would look for nothing behind the end.
        Err(error) => Err(error),
    };
    failpoint!("worker.ended.after_record");
    let is_left = match recorded {
        Ok(()) => false,
        Err(error) => life.leave(&ended, &error),
    };
    if !is_left {
        life.remove().await;
        life.shared.leftovers.end(life.assignment.attempt);
    }
    failpoint!("worker.container.removed");
    ended
}

impl Life {
    async fn forward(&mut self, begin: Begin) -> Result<Ended, Outcome> {
        let (id, waited) = match begin {
            Begin::With { found: Found { id, started_at: Some(at), gpus, .. }, rebooted, stop } => {
                (self.container, self.gpus) = (Some(id.clone()), gpus);
                let mut waited = self.rejoin(&id, at, stop).await;
                if rebooted && waited.finish == Finish::ByItself {
                    waited.finish = Finish::EngineFailed;
                }
                (id, waited)
            }
            begin => {
                let (id, permit) = self.have_container(begin).await?;
                let waited = match self.start(&id, permit).await? {
                    Started::Now(frames) => self.wait(&id, frames).await,
                    Started::Before(at) => self.rejoin(&id, at, None).await,
                };
                (id, waited)
            }
        };
        self.collect(&id, waited).await
    }

    /// A fault of the engine's in an attempt that somebody stopped is its stop.
    fn or_stopped(&self, outcome: Outcome) -> Outcome {
        match self.stop.find_request() {
            Some(request) if outcome.cause == Cause::Infra => Outcome::new(request.cause, ""),
            _ => outcome,
        }
    }

    /// Step 4: until the container has ended and its output was read.
    async fn wait(&mut self, id: &str, frames: Frames) -> Waited {
        tracing::info!(attempt = %self.assignment.attempt, "Waiting for container");
        let ended = CancellationToken::new();
        let limits = self.assignment.spec.limits;
        let waiter = Waiter::new(&self.shared.docker, id, limits, &self.record, &mut self.stop);
        let waiting = async {
            let end = waiter.wait().await;
            ended.cancel();
            end
        };
        let copying = self.log.copy(&self.shared.docker, id, frames, &ended);
        failpoint!("worker.wait.begun");
        let (end, ()) = tokio::join!(waiting, copying);
        failpoint!("worker.wait.ended");
        self.may_run = false;
        end
    }

    /// Steps 3 and 4 of a container that an earlier process started: its log goes on where that
    /// one left it, and its time-out counts from the real start. It may have ended long ago. A stop
    /// that had begun goes on.
    async fn rejoin(&mut self, id: &str, started_at: Timestamp, stop: Option<BegunStop>) -> Waited {
        tracing::info!(attempt = %self.assignment.attempt, "Taking up container {id}");
        (self.may_run, self.started_at) = (true, Some(started_at));
        self.tell(Progress::Started(started_at)).await;
        let ended = CancellationToken::new();
        let limits = self.assignment.spec.limits;
        let ran = Duration::from_millis(clock::wall().ms_since(started_at));
        let waiter = Waiter::new(&self.shared.docker, id, limits, &self.record, &mut self.stop)
            .that_ran(ran)
            .that_was_stopped(stop);
        let waiting = async {
            let end = waiter.wait().await;
            ended.cancel();
            end
        };
        let copying = self.log.follow(&self.shared.docker, id, &ended);
        failpoint!("worker.rejoin.begun");
        let (end, ()) = tokio::join!(waiting, copying);
        failpoint!("worker.rejoin.ended");
        self.may_run = false;
        end
    }

    /// Step 6, when the disk refuses the end: a container that ran is left until the disk takes it,
    /// to say it to the next process. Says whether there is one.
    fn leave(&mut self, ended: &Ended, error: &io::Error) -> bool {
        let attempt = self.assignment.attempt;
        let has_ended = self.started_at.is_some() && !self.may_run && !self.stop.is_abandoned();
        let Some(container) = self.container.take_if(|_| has_ended) else {
            tracing::warn!(%attempt, "Cannot keep the end: {error}; a restart now would lose it");
            return false;
        };
        tracing::warn!(
            %attempt,
            "Cannot keep the end: {error}. Container {container} stays until that can be done"
        );
        let (log, record, ended) = (self.log.take_log(), self.record.clone(), ended.clone());
        let kept = Kept { attempt, container, log, record, ended };
        self.shared.lives.spawn(kept.until_recorded(Arc::clone(&self.shared)));
        true
    }

    /// Step 7: the container and its volume.
    async fn remove(&mut self) {
        let docker = self.shared.docker.clone();
        let Some(id) = self.container.take() else {
            if self.is_resumed {
                let attempt = &self.assignment.attempt;
                remove::remove_strays(&docker, &self.shared.settings, attempt).await;
            }
            return;
        };
        if self.may_run {
            return remove::remove_until_gone(docker, id, Duration::ZERO).await;
        }
        let removal = remove::remove(&docker, &id);
        let why = match tokio::time::timeout(REMOVE_PATIENCE, removal).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it takes longer than {} s", REMOVE_PATIENCE.as_secs()),
        };
        tracing::warn!(attempt = %self.assignment.attempt, "Container {id} is left: {why}");
        tokio::spawn(remove::remove_until_gone(docker, id, remove::LEFT_PAUSE));
        self.note(format!("the container is left until the engine removes it: {why}")).await;
    }

    async fn note(&self, words: String) {
        tracing::debug!(attempt = %self.assignment.attempt, "{words}");
        self.tell(Progress::Note(words)).await;
    }

    /// Waits while the channel is full; a receiver that is gone wants no progress.
    async fn tell(&self, progress: Progress) {
        let _ = self.progress.send(progress).await;
    }
}
