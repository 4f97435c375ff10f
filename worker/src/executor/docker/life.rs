//! The way of one attempt: prepare, create, start, wait, collect, keep, remove. Forward only; each
//! step either goes on or gives the outcome, and whatever the outcome, what was created is removed.
//!
//! The life of an attempt is a task of its own: nobody can drop it between a create and the
//! knowledge of the container's id. It must never report an end by itself before the engine said
//! that the container is not running, and never guess a cause from an exit code. Read next:
//! `wait.rs`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use cloudai_failpoint::failpoint;
use cloudai_model::{Cause, Outcome, PullPolicy, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::container;
use super::end;
use super::engine::{CREATE_DEADLINE, CallError, START_DEADLINE, call};
use super::find::{self, Found, Owner};
use super::gpu::GpuHold;
use super::image::PullState;
use super::keep::Kept;
use super::log::{Frames, LogCopy, attach};
use super::output::{self, Gathered};
use super::remove;
use super::wait::{self, Finish, Stop, Waited, Waiter};
use super::{Begin, OUTPUT_PATH, Shared};
use crate::clock;
use crate::executor::{Assignment, AttemptRecord, BegunStop, Ended, Progress, RunChannels};

/// How many names are tried when a foreign container has ours.
const NAME_RETRIES_MAX: u32 = 8;
/// How often a name is tried again that nobody has and that is not free: an earlier process asked
/// for the container, and the engine is about to make it.
const NAME_PENDING_MAX: u32 = 20;
/// The pause between those tries.
const NAME_PENDING_PAUSE: Duration = Duration::from_millis(250);

/// How long the end of an attempt waits for the removal of its container, which has ended.
const REMOVE_PATIENCE: Duration = Duration::from_secs(20);

/// What became of a container that is not ours to remove any more.
const REMOVED_WORDS: &str = "somebody else removed the container while the task ran";

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
        log: LogCopy::new(log, shared.features.log_driver),
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
    life.log.finish().await;
    if ended.outcome.cause == Cause::Infra {
        life.shared.suspicion.notify_one();
    }
    let (attempt, outcome) = (life.assignment.attempt, &ended.outcome);
    tracing::info!(%attempt, "Container completed: {} {}", outcome.cause, outcome.message);
    failpoint!("worker.ended.before_record");
    let recorded = life.record.ended(&ended).await;
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
                let frames = self.start(&id, permit).await?;
                let waited = self.wait(&id, frames).await;
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

    /// A container that is not started: the one that an earlier process made, or a new one.
    async fn have_container(
        &mut self,
        begin: Begin,
    ) -> Result<(String, OwnedSemaphorePermit), Outcome> {
        let (id, permit) = if let Begin::With { found, .. } = begin {
            (self.container, self.gpus) = (Some(found.id.clone()), found.gpus);
            (found.id, self.admit().await?)
        } else {
            self.gpus = self.hold_gpus()?;
            self.prepare().await?;
            self.create().await?
        };
        // Without this, a restart might take its absence for that of a container never made.
        self.record.created().await.map_err(|error| {
            Outcome::new(Cause::Infra, format!("the worker cannot keep its record: {error}"))
        })?;
        failpoint!("worker.create.recorded");
        Ok((id, permit))
    }

    fn hold_gpus(&self) -> Result<Option<GpuHold>, Outcome> {
        let need_milli = self.assignment.spec.needs.gpu_milli;
        if need_milli == 0 {
            return Ok(None);
        }
        let count = self.shared.features.gpu_count;
        let hold = self.shared.gpus.find_hold(need_milli).ok_or_else(|| {
            let words = format!(
                "no GPU of this worker has room for the {need_milli} thousandths asked for; the \
                 engine can hand out {count} devices"
            );
            Outcome::new(Cause::Infra, words)
        })?;
        Ok(Some(hold))
    }

    /// Step 1: the image, when it has to be fetched in any case. Whether a missing one is missing
    /// is what the create finds out, so that a present image costs no call.
    async fn prepare(&mut self) -> Result<(), Outcome> {
        let (attempt, image) = (self.assignment.attempt, &self.assignment.spec.image);
        match self.assignment.spec.pull {
            PullPolicy::Always => self.pull().await,
            PullPolicy::Missing => {
                tracing::info!(%attempt, "Pulling image {image} if it is missing");
                Ok(())
            }
            PullPolicy::Never => Ok(()),
        }
    }

    async fn pull(&mut self) -> Result<(), Outcome> {
        let (attempt, image) = (self.assignment.attempt, self.assignment.spec.image.clone());
        tracing::info!(%attempt, "Pulling image {image}");
        let config_dir = self.shared.settings.docker_config_dir.clone();
        let mut pull = self.shared.pulls.join(&self.shared.docker, config_dir, &image);
        loop {
            let state = pull.borrow_and_update().clone();
            match state {
                PullState::Running(words) => {
                    failpoint!("worker.image.pulling");
                    self.note(words).await;
                }
                PullState::Done(Ok(())) => {
                    self.note(format!("pulled {image}")).await;
                    return Ok(());
                }
                PullState::Done(Err(outcome)) => return Err(outcome),
            }
            tokio::select! {
                biased;
                request = self.stop.requested() => return Err(Outcome::new(request.cause, "")),
                changed = pull.changed() => changed.map_err(|_| {
                    Outcome::new(Cause::Infra, format!("the pull of '{image}' was given up"))
                })?,
            }
        }
    }

    /// Step 2: the container. A missing image is fetched now, if the policy allows it.
    async fn create(&mut self) -> Result<(String, OwnedSemaphorePermit), Outcome> {
        let shared = Arc::clone(&self.shared);
        let gpus = self.gpus.as_ref();
        let body = container::body(&self.assignment, &shared.settings, &shared.features, gpus)?;
        let mut may_pull = self.assignment.spec.pull == PullPolicy::Missing;
        let (mut retry, mut pending) = (0, 0);
        loop {
            let permit = self.admit().await?;
            let attempt = self.assignment.attempt;
            let name = container::name(&self.assignment, retry);
            tracing::info!(%attempt, "Creating container {name}");
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            failpoint!("worker.create.before");
            let created = shared.docker.create_container(Some(options), body.clone());
            match call("create a container", CREATE_DEADLINE, created).await {
                Ok(created) => {
                    failpoint!("worker.create.after");
                    self.container = Some(created.id.clone());
                    return Ok((created.id, permit));
                }
                Err(error) if error.is_not_found() && may_pull => {
                    drop(permit);
                    may_pull = false;
                    self.pull().await?;
                }
                Err(error) if error.status() == Some(409) && retry < NAME_RETRIES_MAX => {
                    drop(permit);
                    (retry, pending) = self.make_way(&name, retry, pending).await;
                }
                // What a lost answer may have left behind, `leftovers.rs` finds.
                Err(error) => return Err(self.not_created(&error)),
            }
        }
    }

    /// The name is taken: gives the next one to try, and how often this one was pending. The
    /// attempt's own container was never started, for then its record would say so.
    async fn make_way(&mut self, name: &str, retry: u32, pending: u32) -> (u32, u32) {
        let attempt = self.assignment.attempt;
        match find::owner_of(&self.shared, name, attempt).await {
            Owner::Attempt(id) => {
                tracing::info!(%attempt, "Removing container {id}, which was never started");
                if let Err(error) = remove::remove(&self.shared.docker, &id).await {
                    tracing::warn!(%attempt, "Container {id} is left: {error}");
                    return (retry + 1, 0);
                }
                (retry, pending)
            }
            Owner::Unknown if pending < NAME_PENDING_MAX => {
                tokio::time::sleep(NAME_PENDING_PAUSE).await;
                (retry, pending + 1)
            }
            // Another cluster on this host has a container of this name.
            Owner::Unknown | Owner::Stranger => (retry + 1, 0),
        }
    }

    /// A place among the starts in flight; more at once would only make each of them slower.
    async fn admit(&mut self) -> Result<OwnedSemaphorePermit, Outcome> {
        let starts = Arc::clone(&self.shared.starts);
        tokio::select! {
            biased;
            request = self.stop.requested() => Err(Outcome::new(request.cause, "")),
            permit = starts.acquire_owned() => {
                permit.map_err(|error| Outcome::new(Cause::Infra, error.to_string()))
            }
        }
    }

    fn not_created(&self, error: &CallError) -> Outcome {
        let image = &self.assignment.spec.image;
        match error {
            CallError::Refused { status: 404, message, .. }
                if message.contains("No such image") =>
            {
                let never = self.assignment.spec.pull == PullPolicy::Never;
                let hint = if never { " (the pull policy is 'never')" } else { "" };
                Outcome::new(Cause::Image, format!("{message}{hint}"))
            }
            // A bad reference, or an image that names no command. What is wrong with a mount is the
            // administrator's, not the image's.
            CallError::Refused { status: 400, message, .. } if !message.contains("mount") => {
                Outcome::new(Cause::Image, format!("image '{image}': {message}"))
            }
            other => Outcome::new(Cause::Infra, other.to_string()),
        }
    }

    /// Step 3: attach, then start. The permit goes back when the engine has started it.
    async fn start(&mut self, id: &str, permit: OwnedSemaphorePermit) -> Result<Frames, Outcome> {
        if let Some(request) = self.stop.find_request() {
            return Err(Outcome::new(request.cause, ""));
        }
        let attempt = self.assignment.attempt;
        let docker = self.shared.docker.clone();
        let infra = |error: CallError| Outcome::new(Cause::Infra, error.to_string());
        let frames = attach(&docker, id).await.map_err(infra)?;
        tracing::info!(%attempt, "Starting container");
        failpoint!("worker.start.before");
        self.may_run = true;
        let started = docker.start_container(id, None);
        if let Err(error) = call("start a container", START_DEADLINE, started).await {
            self.check_started(id, error).await?;
        }
        drop(permit);
        failpoint!("worker.start.after");
        let started_at = clock::wall();
        self.started_at = Some(started_at);
        self.tell(Progress::Started(started_at)).await;
        Ok(frames)
    }

    /// What came of a start that failed. When only its answer was lost, the container goes on. A
    /// command that does not exist or may not run is the task's own failure: the engine then
    /// records the exit code that a shell would give.
    async fn check_started(&self, id: &str, error: CallError) -> Result<(), Outcome> {
        let (inspected, _) = wait::inspect(&self.shared.docker, id).await;
        let state = inspected.and_then(|inspected| inspected.state).unwrap_or_default();
        if error.status().is_none() && time(state.started_at.as_deref()).is_some() {
            return Ok(());
        }
        if let CallError::Refused { status: 400..500, message, .. } = &error
            && let Some(code @ (126 | 127)) = state.exit_code
        {
            return Err(Outcome::new(Cause::Exit(code as i32), message.clone()));
        }
        Err(Outcome::new(Cause::Infra, error.to_string()))
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
        let copying = self.log.copy(frames, &ended);
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

    /// Step 5: what the engine recorded, what is missing of the log, and the files.
    async fn collect(&mut self, id: &str, waited: Waited) -> Result<Ended, Outcome> {
        let docker = self.shared.docker.clone();
        let (inspected, was_away) = wait::inspect(&docker, id).await;
        let waited = Waited { was_away: waited.was_away || was_away, ..waited };
        let Some(inspected) = inspected else {
            return Err(match waited.finish {
                Finish::Stopped(request) => Outcome::new(request.cause, ""),
                _ => Outcome::new(Cause::Infra, REMOVED_WORDS),
            });
        };
        let state = inspected.state.clone().unwrap_or_default();
        let at = finished_at(&state).unwrap_or_else(clock::wall);
        self.log.complete(&docker, id, at, waited.was_away || self.is_resumed).await;
        let started_at = self.started_at;
        let finish = end::settle(&docker, id, waited, &state).await;
        let mut outcome = self.outcome(&finish, &state, at);
        if self.stop.is_abandoned() {
            return Ok(Ended { outcome, started_at, at, files: Vec::new() });
        }
        failpoint!("worker.files.before_gather");
        let files = match self.gather(id, &inspected).await {
            Ok(gathered) => {
                for note in gathered.notes() {
                    self.note(note).await;
                }
                gathered.files
            }
            Err(error) => {
                let words = format!("the files of {OUTPUT_PATH} cannot be kept: {error}");
                // A result that is lost is no success; another failure keeps its own cause.
                if outcome.cause.is_success() {
                    outcome = Outcome::new(Cause::Infra, words);
                } else {
                    self.note(words).await;
                }
                Vec::new()
            }
        };
        Ok(Ended { outcome, started_at, at, files })
    }

    fn outcome(&self, finish: &Finish, state: &ContainerState, at: Timestamp) -> Outcome {
        let code = state.exit_code.unwrap_or(-1) as i32;
        let overrun = self.find_overrun(at).filter(|_| code != 0);
        match (finish, overrun) {
            (Finish::Stopped(request), _) => Outcome::new(request.cause, ""),
            (Finish::TimedOut { timeout_ms }, _) if !ended_in_time(state, *timeout_ms) => {
                timed_out(*timeout_ms)
            }
            // An earlier process may have stopped it for that; a success is kept in any case.
            (_, Some(timeout_ms)) => timed_out(timeout_ms),
            (Finish::EngineFailed, None) if code != 0 => {
                let words =
                    format!("the engine was restarted while the task ran (exit code {code})");
                Outcome::new(Cause::Infra, words)
            }
            (Finish::StoppedOutside, None) => {
                let words = format!(
                    "the container was stopped through the engine, and not by CloudAI: the engine \
                     was shut down, or somebody stopped it by hand (exit code {code})"
                );
                Outcome::new(Cause::Infra, words)
            }
            // Its removal began before its end: that is what killed it.
            _ if state.status == Some(ContainerStateStatusEnum::REMOVING) => {
                Outcome::new(Cause::Infra, REMOVED_WORDS)
            }
            // The record is also set when only a child was killed and the task went on.
            _ if state.oom_killed == Some(true) && code != 0 => {
                let memory = self.assignment.spec.needs.memory_bytes;
                let words = format!("used more than its {memory} bytes of memory");
                Outcome::new(Cause::Oom, words)
            }
            _ => Outcome::new(Cause::Exit(code), state.error.clone().unwrap_or_default()),
        }
    }

    /// The time-out that a container was over before it was taken up.
    fn find_overrun(&self, at: Timestamp) -> Option<u64> {
        let ran_ms = at.ms_since(self.started_at.filter(|_| self.is_resumed)?);
        self.assignment.spec.limits.timeout_ms.filter(|timeout_ms| ran_ms >= *timeout_ms)
    }

    async fn gather(
        &self,
        id: &str,
        inspected: &ContainerInspectResponse,
    ) -> std::io::Result<Gathered> {
        let mounts = inspected.mounts.iter().flatten();
        let volume = mounts
            .into_iter()
            .find(|mount| output::is_own(mount, &self.shared.settings))
            .and_then(|mount| mount.source.as_ref())
            .filter(|_| self.shared.features.is_local);
        if let Some(source) = volume
            && let Some(gathered) =
                output::gather_local(source.as_ref(), &self.output_dir, self.is_resumed).await
        {
            return gathered;
        }
        output::gather_archive(&self.shared.docker, id, &self.output_dir).await
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
        let (record, ended) = (self.record.clone(), ended.clone());
        let kept = Kept { attempt, container, record, ended };
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

fn timed_out(timeout_ms: u64) -> Outcome {
    Outcome::new(Cause::Timeout, format!("ran longer than its time-out of {timeout_ms} ms"))
}

/// Whether the engine says that a container was over before its time-out, which came only because
/// nobody looked meanwhile.
fn ended_in_time(state: &ContainerState, timeout_ms: u64) -> bool {
    let ran = time(state.started_at.as_deref()).zip(finished_at(state));
    ran.is_some_and(|(started_at, at)| at.ms_since(started_at) < timeout_ms)
}

/// The engine's record of the end.
pub(super) fn finished_at(state: &ContainerState) -> Option<Timestamp> {
    time(state.finished_at.as_deref())
}

/// A time of the engine's; its zero time means that there is none.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    let at = text?.parse::<jiff::Timestamp>().ok()?;
    u64::try_from(at.as_millisecond()).ok().filter(|ms| *ms > 0).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_saw_end_before_its_time_out_ended_in_time() {
        let state = |finished_at: &str| ContainerState {
            started_at: Some("2026-01-01T00:00:00Z".to_owned()),
            finished_at: Some(finished_at.to_owned()),
            ..ContainerState::default()
        };
        assert!(ended_in_time(&state("2026-01-01T00:00:01.999Z"), 2_000));
        assert!(!ended_in_time(&state("2026-01-01T00:00:02Z"), 2_000));
        assert!(!ended_in_time(&state("0001-01-01T00:00:00Z"), 2_000));
    }
}
