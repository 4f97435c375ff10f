//! The executor that this worker was told to use: the one place that knows how many there are.

use std::future::Future;
use std::time::Duration;

use cloudai_model::{Outcome, TaskSpec};
use tokio_util::sync::CancellationToken;

use crate::config::{ExecutorConfig, WorkerConfig, WorkerError};
use crate::executor::docker::{Begin, DockerExecutor, DockerSettings, Found};
use crate::executor::{Assignment, Ended, ExecutorError, RunChannels, mock};
use crate::uplink;

/// An executor.
#[derive(Debug, Clone)]
pub(crate) enum Executor {
    /// Containers.
    Docker(DockerExecutor),
    /// See [`mock`].
    Mock,
}

impl Executor {
    /// Finds the engine. The worker's containers are known by its id and by `instance`, its data
    /// folder. An engine that is away is waited for, as at the start of a machine, unless
    /// `config.once` is set, and until `shutdown`.
    pub(crate) async fn connect(
        config: &WorkerConfig,
        instance: &str,
        shutdown: &CancellationToken,
    ) -> Result<Self, WorkerError> {
        until_it_answers(config.once, shutdown, || Self::connect_once(config, instance)).await
    }

    async fn connect_once(config: &WorkerConfig, instance: &str) -> Result<Self, ExecutorError> {
        let ExecutorConfig::Docker { host } = &config.executor else { return Ok(Self::Mock) };
        let mut settings = DockerSettings::new(config.id.clone(), instance);
        settings.host.clone_from(host);
        settings.volumes.clone_from(&config.volumes);
        settings.pull_stall = config.pull_stall;
        Ok(Self::Docker(DockerExecutor::connect(settings).await?))
    }

    /// Whether what it runs goes on without this process.
    pub(crate) fn outlives_process(&self) -> bool {
        matches!(self, Self::Docker(_))
    }

    /// What an earlier process of this worker left in the engine, which is waited for as in
    /// [`Self::connect`].
    pub(crate) async fn find(
        &self,
        once: bool,
        shutdown: &CancellationToken,
    ) -> Result<Vec<Found>, WorkerError> {
        let Self::Docker(docker) = self else { return Ok(Vec::new()) };
        until_it_answers(once, shutdown, || docker.find()).await
    }

    /// Removes one of these, in the background.
    pub(crate) fn remove(&self, found: Found) {
        match self {
            Self::Docker(docker) => docker.remove(found),
            Self::Mock => {}
        }
    }

    /// Asks for a sign of life; the error says in words why there is none.
    pub(crate) async fn ping(&self) -> Result<(), String> {
        match self {
            Self::Docker(docker) => docker.ping().await.map_err(|error| error.to_string()),
            Self::Mock => Ok(()),
        }
    }

    /// Resolves when there is reason to doubt that the engine is well.
    pub(crate) async fn suspected(&self) {
        match self {
            Self::Docker(docker) => docker.suspected().await,
            Self::Mock => std::future::pending().await,
        }
    }

    /// How many GPUs it can hand out, of `found` that the machine has.
    pub(crate) fn gpu_count(&self, found: u32) -> u32 {
        let Self::Docker(docker) = self else { return found };
        let engine = docker.engine();
        tracing::info!("Engine: {} ({} GPUs)", engine.name, engine.gpu_count);
        found.min(engine.gpu_count)
    }

    /// The outcome of a spec that needs neither time nor a log, so that it need not be run.
    pub(crate) fn find_instant(&self, spec: &TaskSpec) -> Option<Outcome> {
        match self {
            Self::Docker(_) => None,
            Self::Mock => mock::find_instant(spec),
        }
    }

    /// Runs an attempt to its end; it always has one.
    pub(crate) async fn run(
        &self,
        assignment: Assignment,
        channels: RunChannels,
        begin: Begin,
    ) -> Ended {
        match self {
            Self::Docker(docker) => docker.run(assignment, channels, begin).await,
            Self::Mock => mock::run(&assignment.spec, channels).await,
        }
    }

    /// Waits until nothing is left behind, at most for `deadline`; says whether that is so.
    pub(crate) async fn settle(&self, deadline: Duration) -> bool {
        match self {
            Self::Docker(docker) => docker.settle(deadline).await,
            Self::Mock => true,
        }
    }
}

/// Asks the engine again until it answers: at most `once`, and not again after `shutdown`.
async fn until_it_answers<T, F>(
    once: bool,
    shutdown: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<T, WorkerError>
where
    F: Future<Output = Result<T, ExecutorError>>,
{
    let mut pauses = uplink::pauses();
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if once || shutdown.is_cancelled() || !error.may_pass() {
            return Err(WorkerError::Engine(error.to_string()));
        }
        let pause = uplink::next_pause(&mut pauses);
        tracing::warn!("{error}. Next try in {:.1} s", pause.as_secs_f32());
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Err(WorkerError::Engine(error.to_string()));
        }
    }
}
