//! The end of every container: removed with its volumes, and found by its labels when it was left
//! behind. It must never touch a container without this worker's labels.

use std::collections::HashMap;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use cloudai_model::AttemptId;

use super::DockerSettings;
use super::container::{LABEL_ATTEMPT, LABEL_INSTANCE, LABEL_WORKER};
use super::engine::{CallError, READ_DEADLINE, REMOVE_DEADLINE, call};

/// How often a removal is tried again, with 0.2 to 5 s between.
const REMOVE_RETRIES_MAX: usize = 6;
const REMOVE_PAUSE_MIN: Duration = Duration::from_millis(200);
const REMOVE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause before what was left behind is tried again.
pub(super) const LEFT_PAUSE: Duration = Duration::from_secs(30);

/// Removes a container, running or not, with its anonymous volumes. One that is gone is a success.
pub(super) async fn remove(docker: &Docker, id: &str) -> Result<(), CallError> {
    (|| remove_once(docker, id)).retry(pauses().with_max_times(REMOVE_RETRIES_MAX)).await
}

pub(super) async fn remove_once(docker: &Docker, id: &str) -> Result<(), CallError> {
    let options = RemoveContainerOptionsBuilder::default().v(true).force(true).build();
    let removed = docker.remove_container(id, Some(options));
    match call("remove a container", REMOVE_DEADLINE, removed).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

/// Removes a container however long that takes, beginning after `pause`: the engine is away, or
/// the container does not die, and what runs in it must not run on unseen.
pub(super) async fn remove_until_gone(docker: Docker, id: String, pause: Duration) {
    tokio::time::sleep(pause).await;
    let mut pauses = pauses().build();
    while let Err(error) = remove_once(&docker, &id).await {
        tracing::debug!("Container {id} is still there: {error}");
        tokio::time::sleep(pauses.next().unwrap_or(LEFT_PAUSE)).await;
    }
    tracing::debug!("Container {id} is gone");
}

/// Removes a container that nobody waits for, however long that takes.
pub(super) async fn remove_surely(docker: Docker, id: String) {
    if let Err(error) = remove(&docker, &id).await {
        tracing::warn!("Container {id} is left behind: {error}");
        remove_until_gone(docker, id, LEFT_PAUSE).await;
    }
}

/// How long to wait before something is tried again, without end.
pub(super) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(REMOVE_PAUSE_MIN)
        .with_max_delay(REMOVE_PAUSE_MAX)
        .without_max_times()
        .with_jitter()
}

/// A container that carries this worker's labels.
pub(super) struct Listed {
    pub(super) id: String,
    /// Whose it is; `None` when its label is no attempt.
    pub(super) attempt: Option<AttemptId>,
}

/// This worker's containers, or those of one attempt.
pub(super) async fn list(
    docker: &Docker,
    settings: &DockerSettings,
    attempt: Option<&AttemptId>,
) -> Result<Vec<Listed>, CallError> {
    let mut labels = vec![
        format!("{LABEL_WORKER}={}", settings.worker),
        format!("{LABEL_INSTANCE}={}", settings.instance),
    ];
    labels.extend(attempt.map(|attempt| format!("{LABEL_ATTEMPT}={attempt}")));
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker.list_containers(Some(options));
    let containers = call("list containers", READ_DEADLINE, listed).await?;
    let listed = containers.into_iter().filter_map(|container| {
        let label = container.labels.as_ref().and_then(|labels| labels.get(LABEL_ATTEMPT));
        let attempt = label.and_then(|label| label.parse().ok());
        Some(Listed { id: container.id?, attempt })
    });
    Ok(listed.collect())
}

/// Removes what there is of an attempt.
pub(super) async fn remove_strays(docker: &Docker, settings: &DockerSettings, attempt: &AttemptId) {
    let strays = match list(docker, settings, Some(attempt)).await {
        Ok(strays) => strays,
        Err(error) => {
            tracing::warn!(%attempt, "A container may be left behind: {error}");
            return;
        }
    };
    for Listed { id, .. } in strays {
        if let Err(error) = remove(docker, &id).await {
            tracing::warn!(%attempt, "Container {id} is left behind: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one call after the other, each on a connection of its own.
    async fn answer(engine: TcpListener, statuses: [&str; 3]) {
        for status in statuses {
            let (mut call, _) = engine.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(call.read_u8().await.unwrap());
            }
            let text = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
            let text = format!("{text}content-length: 0\r\n\r\n");
            call.write_all(text.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_left_behind_is_removed_when_the_engine_is_back() {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", engine.local_addr().unwrap());
        let docker = Docker::connect_with_http(&address, 10, bollard::API_DEFAULT_VERSION).unwrap();
        let down = "500 Internal Server Error";
        let answers = tokio::spawn(answer(engine, [down, down, "204 No Content"]));
        let pause = Duration::from_millis(1);
        let gone = remove_until_gone(docker, "x".to_owned(), pause);
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it is removed");
        answers.await.unwrap();
    }
}
