//! The way of an attempt up to a container that runs: the image, the container, its start. It must
//! never start a container of which the disk does not say that it exists, nor one a second time.
//! Read next: `wait.rs`.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::CreateContainerOptionsBuilder;
use cloudai_failpoint::failpoint;
use cloudai_model::{Cause, Outcome, PullPolicy, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

use super::super::container;
use super::super::engine::{CREATE_DEADLINE, CallError, START_DEADLINE, call, time};
use super::super::find::{self, Owner};
use super::super::gpu::GpuHold;
use super::super::image::PullState;
use super::super::log::{Frames, attach};
use super::super::{Begin, remove, wait};
use super::Life;
use crate::clock;
use crate::executor::Progress;

/// How many names are tried when a foreign container has ours.
const NAME_RETRIES_MAX: u32 = 8;
/// How often a name is tried again that nobody has and that is not free: an earlier process asked
/// for the container, and the engine is about to make it.
const NAME_PENDING_MAX: u32 = 20;
/// The pause between those tries.
const NAME_PENDING_PAUSE: Duration = Duration::from_millis(250);

/// What came of a start.
pub(super) enum Started {
    /// The container runs; this is its output.
    Now(Frames),
    /// An earlier process had asked for that, and it has run since.
    Before(Timestamp),
}

impl Life {
    /// A container that is not started: the one that an earlier process made, or a new one.
    pub(super) async fn have_container(
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
    pub(super) async fn start(
        &mut self,
        id: &str,
        permit: OwnedSemaphorePermit,
    ) -> Result<Started, Outcome> {
        self.go_on()?;
        let attempt = self.assignment.attempt;
        let docker = self.shared.docker.clone();
        let infra = |error: CallError| Outcome::new(Cause::Infra, error.to_string());
        let frames = attach(&docker, id).await.map_err(infra)?;
        if let Some(at) = self.find_late_start(id).await {
            return Ok(Started::Before(at));
        }
        // The attach may have taken long.
        self.go_on()?;
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
        Ok(Started::Now(frames))
    }

    /// Nothing is started that somebody wants stopped.
    fn go_on(&self) -> Result<(), Outcome> {
        match self.stop.find_request() {
            Some(request) => Err(Outcome::new(request.cause, "")),
            None => Ok(()),
        }
    }

    /// When the container was started after this process found it: the one before may have asked
    /// for that, and the engine answers late. Another start would run the task a second time.
    async fn find_late_start(&self, id: &str) -> Option<Timestamp> {
        if !self.is_resumed {
            return None;
        }
        let (inspected, _) = wait::inspect(&self.shared.docker, id).await;
        find::started_at(&inspected?)
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
}
