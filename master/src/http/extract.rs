//! What comes in with a request, given types; everything that cannot be read is a [`Failure`].

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{header, request::Parts};
use cloudai_api::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, REQUEST_BYTES_MAX};
use cloudai_model::{JobId, TaskId};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::errors::Failure;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read before its client is cut off.
const DISCARDED_BYTES_MAX: usize = 64 * REQUEST_BYTES_MAX;

/// The query of a request.
pub(super) struct ApiQuery<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(query) = Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

/// The variable parts of a path.
pub(super) struct ApiPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(path) = Path::from_request_parts(parts, state).await?;
        Ok(Self(path))
    }
}

/// The JSON body of a request.
pub(super) struct ApiJson<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        if !request.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(Failure::invalid("the body is JSON, so Content-Type is application/json"));
        }
        let body = tokio::time::timeout(BODY_TIMEOUT, read_body(request.into_body())).await;
        let Ok(body) = body else {
            let message = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return Err(Failure::invalid(message));
        };
        read_json(&body?).map(Self)
    }
}

/// The whole body within its bound. A larger one is read on for a while and thrown away: a client
/// that is still sending when its connection closes never sees the answer that says why.
async fn read_body(body: Body) -> Result<Vec<u8>, Failure> {
    let mut pieces = body.into_data_stream();
    let (mut whole, mut length) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece =
            piece.map_err(|error| Failure::invalid(format!("the body cannot be read: {error}")))?;
        length += piece.len();
        if length <= REQUEST_BYTES_MAX {
            whole.extend_from_slice(&piece);
        } else if length > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if length > REQUEST_BYTES_MAX { Err(Failure::too_large()) } else { Ok(whole) }
}

/// Whether a Content-Type is JSON.
pub(super) fn is_json(value: &header::HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let kind = text.split(';').next().unwrap_or(text).trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let mut source = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut source).map_err(|error| {
        let words = error.inner().to_string();
        match error.inner().classify() {
            Category::Data => Failure::of_data("body", &error.path().to_string(), &words),
            _ => Failure::invalid(format!("the body is not JSON: {words}")),
        }
    })?;
    source.end().map_err(|error| Failure::invalid(format!("the body is not JSON: {error}")))?;
    Ok(read)
}

/// A task as people write it: `42`, `task-42`, `42.7`, `task-42.7`.
pub(super) fn task_id(text: &str) -> Result<TaskId, Failure> {
    text.parse().map_err(|error| Failure::field("task", error))
}

/// A job as people write it: `42` or `job-42`.
pub(super) fn job_id(text: &str) -> Result<JobId, Failure> {
    let digits = text.strip_prefix("job-").unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = if plain { digits.parse().ok() } else { None };
    number.map(JobId).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Failure::field("job", format!("'{}' is not a job id (job-42)", shown.escape_debug()))
    })
}

/// The length of a page, checked.
pub(super) fn page_limit(limit: Option<u32>) -> Result<usize, Failure> {
    let limit = limit.unwrap_or(PAGE_LIMIT_DEFAULT);
    if limit == 0 || limit > PAGE_LIMIT_MAX {
        let why = format!("{limit} is out of bounds: from 1 to {PAGE_LIMIT_MAX}");
        return Err(Failure::field("limit", why));
    }
    Ok(limit as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_job(text: &str, want: Option<u64>) {
        assert_eq!(job_id(text).ok().map(|job| job.0), want, "{text}");
    }

    #[test]
    fn a_job_id_is_read_with_and_without_its_prefix() {
        check_job("42", Some(42));
        check_job("job-42", Some(42));
        for text in ["", "job-", "+1", "-1", "job-1.2", "x", "18446744073709551616"] {
            check_job(text, None);
        }
    }

    #[test]
    fn a_page_has_at_least_one_and_at_most_the_bound() {
        assert_eq!(page_limit(None).unwrap(), PAGE_LIMIT_DEFAULT as usize);
        assert_eq!(page_limit(Some(PAGE_LIMIT_MAX)).unwrap(), PAGE_LIMIT_MAX as usize);
        assert!(page_limit(Some(0)).is_err() && page_limit(Some(PAGE_LIMIT_MAX + 1)).is_err());
    }
}
