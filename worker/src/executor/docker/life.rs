//! The way of one attempt: prepare, create, start, wait, collect, remove. Forward only; each step
//! either goes on or gives the outcome, and whatever the outcome, what was created is removed.
//!
//! The life of an attempt is a task of its own: nobody can drop it between a create and the
//! knowledge of the container's id. It must never report an end by itself before the engine said
//! that the container is not running, and never guess a cause from an exit code. Read next:
//! `wait.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use cloudai_model::{Cause, Outcome, PullPolicy, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::container;
use super::engine::{CREATE_DEADLINE, CallError, START_DEADLINE, call};
use super::gpu::GpuHold;
use super::image::PullState;
use super::log::{Frames, LogCopy, attach};
use super::output::{self, Gathered};
use super::remove;
use super::wait::{self, Finish, Stop, Waited, Waiter};
use super::{OUTPUT_PATH, Shared};
use crate::clock;
use crate::executor::{Assignment, Ended, Progress, RunChannels};

/// How many names are tried when a foreign container has ours.
const NAME_RETRIES_MAX: u32 = 8;

/// How long the end of an attempt waits for the removal of its container, which has ended.
const REMOVE_PATIENCE: Duration = Duration::from_secs(20);

/// What became of a container that is not ours to remove any more.
const REMOVED_WORDS: &str = "somebody else removed the container while the task ran";

/// A container that exists.
struct Container {
    id: String,
    /// Held until it is started.
    permit: OwnedSemaphorePermit,
}

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
}

/// Takes an attempt from its image to its removal.
pub(super) async fn live(
    shared: Arc<Shared>,
    assignment: Assignment,
    channels: RunChannels,
    abandoned: CancellationToken,
) -> Ended {
    let RunChannels { progress, log, stop, output_dir } = channels;
    let (log, stop) = (LogCopy::new(log), Stop::new(stop, abandoned));
    let mut life = Life { shared, assignment, progress, log, stop, output_dir, may_run: false };
    let ended = life.forward().await.unwrap_or_else(|outcome| Ended {
        outcome: life.or_stopped(outcome),
        at: clock::wall(),
        files: Vec::new(),
    });
    life.log.finish().await;
    if ended.outcome.cause == Cause::Infra {
        life.shared.suspicion.notify_one();
    }
    let (attempt, outcome) = (life.assignment.attempt, &ended.outcome);
    tracing::info!(%attempt, "Container completed: {} {}", outcome.cause, outcome.message);
    ended
}

impl Life {
    async fn forward(&mut self) -> Result<Ended, Outcome> {
        let gpus = self.hold_gpus()?;
        self.prepare().await?;
        let container = self.create(gpus.as_ref()).await?;
        let id = container.id.clone();
        let ended = self.run(container).await;
        self.remove(&id).await;
        ended
    }

    /// A fault of the engine's in an attempt that somebody stopped is its stop.
    fn or_stopped(&self, outcome: Outcome) -> Outcome {
        match self.stop.find_request() {
            Some(request) if outcome.cause == Cause::Infra => Outcome::new(request.cause, ""),
            _ => outcome,
        }
    }

    async fn run(&mut self, container: Container) -> Result<Ended, Outcome> {
        let id = container.id.clone();
        let frames = self.start(container).await?;
        let waited = self.wait(&id, frames).await;
        self.collect(&id, waited).await
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
                PullState::Running(words) => self.note(words).await,
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
    async fn create(&mut self, gpus: Option<&GpuHold>) -> Result<Container, Outcome> {
        let shared = Arc::clone(&self.shared);
        let body = container::body(&self.assignment, &shared.settings, &shared.features, gpus)?;
        let mut may_pull = self.assignment.spec.pull == PullPolicy::Missing;
        let mut retry = 0;
        loop {
            let permit = self.admit().await?;
            let attempt = self.assignment.attempt;
            let name = container::name(&self.assignment, retry);
            tracing::info!(%attempt, "Creating container {name}");
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let created = shared.docker.create_container(Some(options), body.clone());
            match call("create a container", CREATE_DEADLINE, created).await {
                Ok(created) => return Ok(Container { id: created.id, permit }),
                Err(error) if error.is_not_found() && may_pull => {
                    drop(permit);
                    may_pull = false;
                    self.pull().await?;
                }
                // Another cluster on this host has a container of this name.
                Err(error) if error.status() == Some(409) && retry < NAME_RETRIES_MAX => retry += 1,
                Err(error) => {
                    if error.status().is_none() {
                        let (docker, settings) = (shared.docker.clone(), shared.settings.clone());
                        tokio::spawn(remove::watch_strays(docker, settings, attempt));
                    }
                    return Err(self.not_created(&error));
                }
            }
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
    async fn start(&mut self, container: Container) -> Result<Frames, Outcome> {
        if let Some(request) = self.stop.find_request() {
            return Err(Outcome::new(request.cause, ""));
        }
        let attempt = self.assignment.attempt;
        let docker = self.shared.docker.clone();
        let infra = |error: CallError| Outcome::new(Cause::Infra, error.to_string());
        let frames = attach(&docker, &container.id).await.map_err(infra)?;
        tracing::info!(%attempt, "Starting container");
        self.may_run = true;
        let started = docker.start_container(&container.id, None);
        if let Err(error) = call("start a container", START_DEADLINE, started).await {
            self.check_started(&container.id, error).await?;
        }
        drop(container.permit);
        self.tell(Progress::Started(clock::wall())).await;
        Ok(frames)
    }

    /// What came of a start that failed. When only its answer was lost, the container goes on. A
    /// command that does not exist or may not run is the task's own failure: the engine then
    /// records the exit code that a shell would give.
    async fn check_started(&self, id: &str, error: CallError) -> Result<(), Outcome> {
        let (inspected, _) = wait::inspect(&self.shared.docker, id).await;
        let state = inspected.and_then(|inspected| inspected.state).unwrap_or_default();
        if error.status().is_none() && parse_time(state.started_at.as_deref()).is_some() {
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
        let waiter = Waiter::new(&self.shared.docker, id, limits, &mut self.stop);
        let waiting = async {
            let end = waiter.wait().await;
            ended.cancel();
            end
        };
        let copying = self.log.copy(frames, &ended);
        let (end, ()) = tokio::join!(waiting, copying);
        self.may_run = false;
        end
    }

    /// Step 5: what the engine recorded, what is missing of the log, and the files.
    async fn collect(&mut self, id: &str, waited: Waited) -> Result<Ended, Outcome> {
        let Waited { finish, was_away } = waited;
        let (inspected, _) = wait::inspect(&self.shared.docker, id).await;
        let Some(inspected) = inspected else {
            return Err(match finish {
                Finish::Stopped(request) => Outcome::new(request.cause, ""),
                _ => Outcome::new(Cause::Infra, REMOVED_WORDS),
            });
        };
        let state = inspected.state.clone().unwrap_or_default();
        let at = finished_at(&state).unwrap_or_else(clock::wall);
        self.log.complete(&self.shared.docker, id, at, was_away).await;
        let mut outcome = self.outcome(&finish, &state);
        if self.stop.is_abandoned() {
            return Ok(Ended { outcome, at, files: Vec::new() });
        }
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
        Ok(Ended { outcome, at, files })
    }

    fn outcome(&self, finish: &Finish, state: &ContainerState) -> Outcome {
        let code = state.exit_code.unwrap_or(-1) as i32;
        match finish {
            Finish::Stopped(request) => Outcome::new(request.cause, ""),
            Finish::TimedOut { timeout_ms } => {
                let words = format!("ran longer than its time-out of {timeout_ms} ms");
                Outcome::new(Cause::Timeout, words)
            }
            Finish::EngineFailed if code != 0 => {
                let words =
                    format!("the engine was restarted while the task ran (exit code {code})");
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

    async fn gather(
        &self,
        id: &str,
        inspected: &ContainerInspectResponse,
    ) -> std::io::Result<Gathered> {
        let mounts = inspected.mounts.iter().flatten();
        let volume = mounts
            .into_iter()
            .find(|mount| mount.destination.as_deref() == Some(OUTPUT_PATH))
            .and_then(|mount| mount.source.as_ref())
            .filter(|_| self.shared.features.is_local);
        if let Some(source) = volume
            && let Some(gathered) = output::gather_local(source.as_ref(), &self.output_dir).await
        {
            return gathered;
        }
        output::gather_archive(&self.shared.docker, id, &self.output_dir).await
    }

    /// Step 6, always: the container and its volume. One that may still run takes its capacity
    /// until it is gone; one that has ended takes only space, and its end need not wait for that.
    async fn remove(&mut self, id: &str) {
        let docker = self.shared.docker.clone();
        if self.may_run {
            return remove::remove_until_gone(docker, id.to_owned(), Duration::ZERO).await;
        }
        let removal = remove::remove(&self.shared.docker, id);
        let why = match tokio::time::timeout(REMOVE_PATIENCE, removal).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it takes longer than {} s", REMOVE_PATIENCE.as_secs()),
        };
        tracing::warn!(attempt = %self.assignment.attempt, "Container {id} is left: {why}");
        tokio::spawn(remove::remove_until_gone(docker, id.to_owned(), remove::LEFT_PAUSE));
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

/// The engine's record of the end; its zero time means that there is none.
fn finished_at(state: &ContainerState) -> Option<Timestamp> {
    parse_time(state.finished_at.as_deref())
}

/// A time of the engine's.
fn parse_time(text: Option<&str>) -> Option<Timestamp> {
    let at = text?.parse::<jiff::Timestamp>().ok()?;
    u64::try_from(at.as_millisecond()).ok().filter(|ms| *ms > 0).map(Timestamp)
}
