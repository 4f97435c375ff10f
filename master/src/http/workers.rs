//! Workers: what they offer and what they do.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use cloudai_api::{ErrorBody, RunningTask, WorkerList, WorkerView};
use cloudai_master_core::WorkerStatus;

use super::errors::Failure;
use super::extract::ApiPath;
use super::{App, Shared, convert};

/// Most attempts that the answer for one worker lists.
const RUNNING_MAX: usize = 1_000;

/// Lists every worker that ever registered.
#[utoipa::path(
    get, path = "/workers", tag = "workers", operation_id = "listWorkers",
    responses((status = 200, body = WorkerList), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(State(app): State<App>) -> Result<Json<WorkerList>, Failure> {
    let view = app.heart.view().await?;
    let show =
        |worker: &WorkerStatus| convert::worker_view(worker, app.usage.find(&worker.record.id));
    Ok(Json(WorkerList { workers: view.workers.iter().map(show).collect() }))
}

/// Shows a worker with the attempts that it holds.
#[utoipa::path(
    get, path = "/workers/{id}", tag = "workers", operation_id = "showWorker",
    params(("id" = String, Path, description = "the worker's id")),
    responses((status = 200, body = WorkerView), (status = "default", body = ErrorBody))
)]
pub(super) async fn show(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<WorkerView>, Failure> {
    let view = app.heart.view().await?;
    let found = view.workers.iter().find(|worker| worker.record.id.as_str() == id);
    let worker = found.ok_or_else(|| Failure::no_worker(&id))?;
    let mut shown = convert::worker_view(worker, app.usage.find(&worker.record.id));
    shown.tasks = Some(running(&app, worker).await?);
    Ok(Json(shown))
}

async fn running(app: &Shared, worker: &WorkerStatus) -> Result<Vec<RunningTask>, Failure> {
    let tasks: Vec<_> =
        worker.held.iter().take(RUNNING_MAX).map(|held| held.attempt.task).collect();
    let read = app.readers.read(move |reader| {
        let mut records = HashMap::with_capacity(tasks.len());
        for task in tasks {
            if let Some(record) = reader.find_task(task)? {
                records.insert(task, record);
            }
        }
        Ok(records)
    });
    let records = read.await?;
    let shown = worker.held.iter().filter_map(|held| {
        let record = records.get(&held.attempt.task)?;
        Some(convert::running_task(*held, record))
    });
    Ok(shown.collect())
}
