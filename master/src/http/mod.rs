//! The HTTP API of a master: `/api/v1`, as `cloudai_api` describes it, beside the probes.
//!
//! Commands go to the heart, reads go to the store's own readers or to the view that the heart
//! makes after a commit; bytes of logs and files go straight from disk to the client. Nothing here
//! holds state of the cluster, and every wait, stream and connection is bounded.
//!
//! **Architecture Invariant:** `cloudai_api` types meet model types only in `convert/`, and every
//! answer that is not a success is a [`errors::Failure`].
//!
//! Read next: `jobs.rs` (a submit), `wait.rs` (how a request waits), `serve.rs` (connections).

mod backend;
mod cluster;
mod convert;
mod errors;
mod events;
mod extract;
mod files;
mod guard;
mod jobs;
mod logs;
mod openapi;
mod serve;
mod tasks;
#[cfg(test)]
mod tests;
mod wait;
mod workers;

use std::sync::Arc;

use axum::Router;
use cloudai_api::{AgentView, ErrorCode};
use cloudai_model::Monotonic;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::files::TaskFiles;
use crate::heart::HeartHandle;
use crate::readers::Readers;
use crate::usage::UsageTable;
use errors::Failure;

pub(crate) use backend::backend;
pub(crate) use serve::serve;

/// What an external agent did, asked anew for each `status`.
pub(crate) type AgentProbe = Arc<dyn Fn() -> Option<AgentView> + Send + Sync>;

/// What a master tells of itself.
#[derive(Clone)]
pub(crate) struct MasterInfo {
    /// Its version.
    pub(crate) version: String,
    /// The store, in words: `SQLite (/var/lib/cloudai/cloudai.db)`.
    pub(crate) store: String,
    /// The built-in policy's name.
    pub(crate) policy: &'static str,
    /// When it started.
    pub(crate) started_at: Monotonic,
    /// What an external agent did; `None` from it as long as none has called.
    pub(crate) agent: AgentProbe,
    /// Where workers and agents reach it: `127.0.0.1:50051`.
    pub(crate) grpc_address: String,
    /// Host names that a request may name besides addresses and `localhost`; `None` when every
    /// name will do, because the API is not bound to loopback.
    pub(crate) host_names: Option<Vec<String>>,
}

/// What the API works on.
#[derive(Clone)]
pub(crate) struct HttpState {
    /// Takes commands, shows the live part.
    pub(crate) heart: HeartHandle,
    /// Look at the store.
    pub(crate) readers: Readers,
    /// Logs and output files.
    pub(crate) files: Arc<TaskFiles>,
    /// What the workers' machines use.
    pub(crate) usage: Arc<UsageTable>,
    /// What the master tells of itself.
    pub(crate) info: MasterInfo,
    /// Cancelled when the master stops: waits and streams end with it.
    pub(crate) shutdown: CancellationToken,
}

/// The state of every handler.
struct Shared {
    heart: HeartHandle,
    readers: Readers,
    files: Arc<TaskFiles>,
    usage: Arc<UsageTable>,
    info: MasterInfo,
    shutdown: CancellationToken,
    /// Places for requests that last: waits, streams, downloads.
    watchers: Arc<Semaphore>,
}

type App = Arc<Shared>;

/// The whole API as a service without connections: `serve` gives it some, `backend` calls it from
/// within the process.
pub(crate) fn router(state: HttpState) -> Router {
    let HttpState { heart, readers, files, usage, info, shutdown } = state;
    let watchers = Arc::new(Semaphore::new(wait::WATCHERS_MAX));
    let app: App = Arc::new(Shared { heart, readers, files, usage, info, shutdown, watchers });
    let (routes, description) = openapi::split(openapi::routes());
    routes
        .merge(openapi::document(&description))
        .merge(cluster::probes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}

async fn no_such_path() -> Failure {
    Failure::new(ErrorCode::NotFound, "there is no such path in the API")
        .hint("GET /api/v1/openapi.json lists every path")
}

async fn no_such_method() -> Failure {
    Failure::new(ErrorCode::MethodNotAllowed, "the path exists, but not with this method")
        .hint("GET /api/v1/openapi.json lists every path with its methods")
}
