//! The whole: probes, health, status and the queue.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cloudai_api::{ClusterStatus, ErrorBody, Health, QueueView};

use super::errors::Failure;
use super::{App, Shared, convert};
use crate::clock;

/// How long the heart may take for a turn before the master counts as not ready.
const HEART_TIMEOUT: Duration = Duration::from_secs(2);

/// The probes of supervisors: one line each.
pub(super) fn probes() -> Router<App> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

async fn healthz(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ending\n");
    }
    (StatusCode::OK, "ok\n")
}

async fn readyz(State(app): State<App>) -> (StatusCode, String) {
    match unready_reason(&app).await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("unready: {reason}\n")),
    }
}

/// Why it takes no work: the heart does not end a turn, or its store kept nothing lately. What has
/// nothing to keep, as this question, says nothing of the store.
async fn unready_reason(app: &Shared) -> Option<String> {
    match tokio::time::timeout(HEART_TIMEOUT, app.heart.view()).await {
        Ok(Ok(view)) => view.store_full.then(|| {
            let store = &app.info.store;
            format!(
                "storage full: there is no room left for {store}. New work is refused, what runs \
                 goes on. Free space on that disk, and the master goes on by itself"
            )
        }),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!(
            "the master has not ended a turn for {} s: its disk may be slow",
            HEART_TIMEOUT.as_secs()
        )),
    }
}

/// Tells whether the master takes work; 503 with the same body when it does not.
#[utoipa::path(
    get, path = "/health", tag = "cluster", operation_id = "health",
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
pub(super) async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let reason = unready_reason(&app).await;
    let status = match &reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let version = app.info.version.clone();
    (status, Json(Health { ready: reason.is_none(), version, reason }))
}

/// Counts workers and tasks, and tells what this master is.
#[utoipa::path(
    get, path = "/status", tag = "cluster", operation_id = "status",
    responses((status = 200, body = ClusterStatus), (status = "default", body = ErrorBody))
)]
pub(super) async fn status(State(app): State<App>) -> Result<Json<ClusterStatus>, Failure> {
    let view = app.heart.view().await?;
    let counts = app.readers.read(|reader| reader.counts()).await?;
    let info = &app.info;
    Ok(Json(ClusterStatus {
        workers: convert::worker_counts(&view),
        tasks: convert::task_counts(counts),
        version: info.version.clone(),
        store: info.store.clone(),
        uptime_ms: clock::now().mono.ms_since(info.started_at),
        policy: info.policy.to_owned(),
        agent: (info.agent)(),
        grpc_address: info.grpc_address.clone(),
        stale_reports: view.stale_reports,
    }))
}

/// Shows what waits, by shape, and why.
#[utoipa::path(
    get, path = "/queue", tag = "cluster", operation_id = "queue",
    responses((status = 200, body = QueueView), (status = "default", body = ErrorBody))
)]
pub(super) async fn queue(State(app): State<App>) -> Result<Json<QueueView>, Failure> {
    Ok(Json(convert::queue_view(app.heart.view().await?.as_ref())))
}
