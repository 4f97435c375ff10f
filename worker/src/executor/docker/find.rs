//! What an earlier process of this worker left in the engine: its containers, by their labels, and
//! how far each came. It must never find a container of another worker. Read next: `life.rs` (what
//! becomes of one that is taken up) and `remove.rs` (of one that is not).

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use cloudai_model::{AttemptId, Timestamp};
use futures_util::StreamExt;

use super::Shared;
use super::container::{LABEL_ATTEMPT, LABEL_GPU_MILLI, LABEL_INSTANCE, LABEL_WORKER};
use super::engine::{CallError, READ_DEADLINE, call, time};
use super::gpu::GpuHold;
use super::remove::{self, Listed};
use crate::executor::ExecutorError;

/// Containers that are looked at at once.
const LOOKS_AT_ONCE: usize = 8;
/// How long all the looks together may take.
const FIND_DEADLINE: Duration = Duration::from_mins(2);

/// A container of an earlier process. As long as it is held, so are its GPUs.
#[derive(Debug)]
pub struct Found {
    pub(super) id: String,
    attempt: Option<AttemptId>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) gpus: Option<GpuHold>,
}

impl Found {
    /// Whose it is; `None` when its label is no attempt.
    pub fn attempt(&self) -> Option<AttemptId> {
        self.attempt
    }

    /// When it started; `None` when it only exists.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }
}

/// Everything that carries this worker's labels.
pub(super) async fn find(shared: &Shared) -> Result<Vec<Found>, ExecutorError> {
    let listed = remove::list(&shared.docker, &shared.settings, None).await?;
    let count = listed.len();
    let looks = futures_util::stream::iter(listed)
        .map(|container| async move { look(shared, container).await })
        .buffer_unordered(LOOKS_AT_ONCE)
        .collect::<Vec<_>>();
    let looks = tokio::time::timeout(FIND_DEADLINE, looks).await.map_err(|_| {
        let seconds = FIND_DEADLINE.as_secs();
        let why = format!("it did not tell of {count} containers within {seconds} s");
        ExecutorError::Engine { why }
    })?;
    let found = looks.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Looks at one; `None` when it is gone meanwhile.
async fn look(shared: &Shared, listed: Listed) -> Result<Option<Found>, CallError> {
    let Listed { id, attempt } = listed;
    let inspected = shared.docker.inspect_container(&id, None);
    match call("inspect a container", READ_DEADLINE, inspected).await {
        Ok(inspected) => Ok(Some(Found {
            attempt,
            started_at: started_at(&inspected),
            gpus: hold_gpus(shared, &inspected),
            id,
        })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whose a container is that has the name which one of ours should have.
pub(super) enum Owner {
    /// The attempt's own: an earlier process asked for it.
    Attempt(String),
    /// Somebody else's.
    Stranger,
    /// Nobody's: it is being made, or removed.
    Unknown,
}

pub(super) async fn owner_of(shared: &Shared, name: &str, attempt: AttemptId) -> Owner {
    let inspected = shared.docker.inspect_container(name, None);
    let Ok(inspected) = call("inspect a container", READ_DEADLINE, inspected).await else {
        return Owner::Unknown;
    };
    let settings = &shared.settings;
    let is_ours = label(&inspected, LABEL_WORKER) == Some(settings.worker.as_str())
        && label(&inspected, LABEL_INSTANCE) == Some(settings.instance.as_str())
        && label(&inspected, LABEL_ATTEMPT) == Some(attempt.to_string().as_str());
    match inspected.id {
        Some(id) if is_ours => Owner::Attempt(id),
        _ => Owner::Stranger,
    }
}

fn label<'a>(inspected: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    inspected.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
}

/// The engine's word; one that was never started has its zero time.
pub(super) fn started_at(inspected: &ContainerInspectResponse) -> Option<Timestamp> {
    let state = inspected.state.as_ref()?;
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return None;
    }
    time(state.started_at.as_deref())
}

fn hold_gpus(shared: &Shared, inspected: &ContainerInspectResponse) -> Option<GpuHold> {
    let requests = inspected.host_config.as_ref()?.device_requests.as_ref()?;
    let ids = requests.iter().filter_map(|request| request.device_ids.as_ref()).flatten();
    let devices = ids.filter_map(|id| id.parse().ok()).collect::<Vec<_>>();
    let need_milli = label(inspected, LABEL_GPU_MILLI)?.parse().ok()?;
    Some(shared.gpus.hold_again(&devices, need_milli))
}
