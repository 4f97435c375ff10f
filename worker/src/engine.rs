//! The executor that this worker was told to use: the one place that knows how many there are.

use std::time::Duration;

use cloudai_model::{Outcome, TaskSpec};

use crate::config::{ExecutorConfig, WorkerConfig, WorkerError};
use crate::executor::docker::{DockerExecutor, DockerSettings};
use crate::executor::{Assignment, Ended, RunChannels, mock};

/// An executor.
#[derive(Debug, Clone)]
pub(crate) enum Executor {
    /// Containers.
    Docker(DockerExecutor),
    /// See [`mock`].
    Mock,
}

impl Executor {
    /// Finds the engine and removes what an earlier process of this worker left in it.
    pub(crate) async fn connect(config: &WorkerConfig) -> Result<Self, WorkerError> {
        let ExecutorConfig::Docker { host } = &config.executor else { return Ok(Self::Mock) };
        let failed = |error: crate::executor::ExecutorError| WorkerError::Engine(error.to_string());
        let instance = config.data_dir.to_string_lossy();
        let mut settings = DockerSettings::new(config.id.clone(), instance);
        settings.host.clone_from(host);
        settings.volumes.clone_from(&config.volumes);
        let docker = DockerExecutor::connect(settings).await.map_err(failed)?;
        let removed = docker.sweep().await.map_err(failed)?;
        if removed > 0 {
            tracing::info!("Removed {removed} containers that an earlier process left");
        }
        Ok(Self::Docker(docker))
    }

    /// How many GPUs it can hand out, of `found` that the machine has.
    pub(crate) async fn gpu_count(&self, found: u32) -> Result<u32, WorkerError> {
        let Self::Docker(docker) = self else { return Ok(found) };
        let engine =
            docker.probe().await.map_err(|error| WorkerError::Engine(error.to_string()))?;
        tracing::info!("Engine: {} ({} GPUs)", engine.name, engine.gpu_count);
        Ok(found.min(engine.gpu_count))
    }

    /// The outcome of a spec that needs neither time nor a log, so that it need not be run.
    pub(crate) fn find_instant(&self, spec: &TaskSpec) -> Option<Outcome> {
        match self {
            Self::Docker(_) => None,
            Self::Mock => mock::find_instant(spec),
        }
    }

    /// Runs an attempt to its end; it always has one.
    pub(crate) async fn run(&self, assignment: Assignment, channels: RunChannels) -> Ended {
        match self {
            Self::Docker(docker) => docker.run(assignment, channels).await,
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
