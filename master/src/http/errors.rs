//! Every answer that is not a success: one table from what went wrong inside to code, words and
//! hint. The HTTP status belongs to the code and stands in `cloudai_api::ErrorCode`.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cloudai_api::{ErrorBody, ErrorCode, REQUEST_BYTES_MAX};
use cloudai_database::StoreError;
use cloudai_master_core::Rejection;
use cloudai_model::{JobId, ShapeError, SpecError, TaskId, WorkerId};

use crate::heart::HeartError;

/// What a client that met a busy master waits before it comes back, in seconds.
const RETRY_AFTER_S: &str = "1";

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure(ErrorBody);

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ErrorBody::new(code, message))
    }

    #[must_use]
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self(self.0.with_hint(hint))
    }

    /// A field that is out of bounds or malformed.
    pub(super) fn field(field: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("{field}: {why}");
        Self(ErrorBody::new(ErrorCode::InvalidField, message).with_field(field))
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
            .hint("GET /api/v1/openapi.json describes every request")
    }

    pub(super) fn too_large() -> Self {
        let message = format!("the body is larger than {REQUEST_BYTES_MAX} bytes");
        Self::new(ErrorCode::TooLarge, message)
            .hint("put large inputs into the image or into a volume")
    }

    pub(super) fn no_task(task: TaskId) -> Self {
        Self::new(ErrorCode::TaskNotFound, format!("there is no {task}"))
            .hint("'tasks' lists the tasks that there are")
    }

    pub(super) fn no_job(job: JobId) -> Self {
        Self::new(ErrorCode::JobNotFound, format!("there is no {job}"))
            .hint("'tasks' lists the tasks that there are, with their jobs")
    }

    pub(super) fn no_worker(name: &str) -> Self {
        let shown: String = name.chars().take(WorkerId::LEN_MAX).collect();
        let message = format!("Worker '{}' not found", shown.escape_debug());
        Self::new(ErrorCode::WorkerNotFound, message)
            .hint("'workers' lists those that have registered")
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Busy, message).hint("nothing was done; try again in a moment")
    }

    pub(super) fn stopping() -> Self {
        Self::new(ErrorCode::NotReady, "the master is stopping").hint("try again when it is back")
    }

    /// Something failed that is not the client's doing. The words go to the log as well.
    pub(super) fn internal(what: &str, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        tracing::error!("{text}");
        Self::new(ErrorCode::Internal, text).hint("the master's log says more")
    }

    pub(super) fn body(&self) -> &ErrorBody {
        &self.0
    }

    /// What the deserializer said of `path` within the request.
    pub(super) fn of_data(part: &str, path: &str, words: &str) -> Self {
        let whole = ["unknown field", "missing field", "duplicate field"];
        let about_whole = whole.iter().any(|start| words.starts_with(start));
        if about_whole || path.is_empty() || path == "." || path == "?" {
            return Self::invalid(format!("the {part} cannot be read: {words}"));
        }
        Self::field(path, words)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.0.error.code;
        let status = StatusCode::from_u16(code.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        if code.is_temporary() {
            let value = HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

impl From<HeartError> for Failure {
    fn from(error: HeartError) -> Self {
        match error {
            HeartError::Busy => Self::busy("the master has as much to do as it takes"),
            HeartError::Stopped | HeartError::Replaced => Self::stopping(),
            HeartError::StorageFull(words) => Self::new(ErrorCode::StorageFull, words)
                .hint("free space on the master's disk; tasks that run go on meanwhile"),
            HeartError::Storage(words) => {
                Self::new(ErrorCode::Internal, words).hint("the master's log says more")
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::new(ErrorCode::StorageFull, error.to_string()),
            other => Self::internal("the store could not be read", &other),
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Spec(error) => error.into(),
            Rejection::Shape(error) => error.into(),
            Rejection::UnknownWorker(worker) => Self::no_worker(worker.as_str()),
            Rejection::QueueFull(_) | Rejection::TooFast => Self::busy(rejection.to_string()),
            other => Self::new(ErrorCode::Conflict, other.to_string()),
        }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        // Where the model's word is shorter than the API's.
        let field = match error.field {
            "memory" => "memory_bytes",
            "storage" => "storage_bytes",
            same => same,
        };
        Self::field(field, error.why)
    }
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::field("array", error)
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let words = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        match words.split_once(": ").filter(|(path, _)| is_name(path)) {
            Some((path, words)) => Self::of_data("query", path, words),
            None => Self::of_data("query", "", words),
        }
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(format!("the path cannot be read: {}", rejection.body_text()))
    }
}
