//! No-op containers through the Docker API with nothing in between: create, start, wait, logs,
//! remove. What CloudAI adds to this is its overhead.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _};

/// Runs `containers` of them, `at_once` at a time, and tells how long it took.
pub(crate) fn run(image: &str, containers: u32, at_once: u32) -> Result<Duration> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let docker = Docker::connect_with_defaults().context("no Docker engine")?;
        let began = Instant::now();
        let lives = futures_util::stream::iter(0..containers);
        lives
            .map(|_| live(docker.clone(), image))
            .buffer_unordered(at_once as usize)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(began.elapsed())
    })
}

async fn live(docker: Docker, image: &str) -> Result<()> {
    let limits = HostConfig {
        nano_cpus: Some(1_000_000_000),
        memory: Some(512 << 20),
        memory_swap: Some(512 << 20),
        pids_limit: Some(4096),
        init: Some(true),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        ..HostConfig::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        host_config: Some(limits),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await?.id;
    docker.start_container(&id, None).await?;
    let wait = WaitContainerOptionsBuilder::new().build();
    docker.wait_container(&id, Some(wait)).try_collect::<Vec<_>>().await?;
    let logs = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    docker.logs(&id, Some(logs)).try_collect::<Vec<_>>().await?;
    let remove = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
    docker.remove_container(&id, Some(remove)).await?;
    Ok(())
}

/// The moment (Unix milliseconds) at which each container with our label was created, as the
/// engine's own events say, for `count` containers, while `work` runs.
pub(crate) fn creations_during(
    count: u32,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<Vec<u64>> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let docker = Docker::connect_with_defaults().context("no Docker engine")?;
        let filters = std::collections::HashMap::from([
            ("event".to_owned(), vec!["create".to_owned()]),
            ("label".to_owned(), vec!["cloudai.worker=bench-worker".to_owned()]),
        ]);
        let options =
            bollard::query_parameters::EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = docker.events(Some(options));
        let working = tokio::task::spawn_blocking(work);
        let mut created = Vec::new();
        while created.len() < count as usize {
            let event = events.next().await.context("the engine's events ended")??;
            let nanos = event.time_nano.context("an event without a time")?;
            created.push(u64::try_from(nanos / 1_000_000)?);
        }
        working.await??;
        Ok(created)
    })
}
