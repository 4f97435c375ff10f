//! The API's calls with their types, over any backend.
//!
//! Errors leave here as sentences for people. A submit is tried again when that is safe: it
//! carries a request id, so that the same job comes back. Nothing else is retried here.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use cloudai_api::{
    BASE, CancelResponse, ClusterStatus, ErrorBody, ErrorCode, Explanation, FileList, Health,
    JobView, LogItem, QueueView, SubmitRequest, SubmitResponse, TaskDetail, TaskPage, TaskQuery,
    WorkerList, WorkerView,
};
use serde::de::DeserializeOwned;

use crate::backend::{Backend, BackendError, Request, Response};
use crate::failure::Failure;
use crate::grammar::flag_of;
use crate::id::{JobRef, TaskRef};

/// Waits between the tries of a submit that met a busy or vanishing master.
const SUBMIT_BACKOFF_MS: [u64; 5] = [100, 300, 1_000, 2_000, 4_000];

/// Longest line of a followed log: 64 KiB of a container's output, escaped or in base64, and its
/// frame. A longer one means that the other side is no master.
const LOG_LINE_BYTES_MAX: u64 = 16 << 20;

/// A client of one master.
#[derive(Clone)]
pub struct Client {
    backend: Arc<dyn Backend>,
}

impl Client {
    /// A client over this backend.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// Where the master is, for messages.
    pub fn address(&self) -> String {
        self.backend.address()
    }

    /// `GET /health`.
    pub fn health(&self) -> Result<Health, Failure> {
        // A master that is not ready says so with 503 and the same body.
        let response = self.send(&Request::get(format!("{BASE}/health")))?;
        serde_json::from_slice(&response.body).map_err(|_| self.refusal(&response))
    }

    /// `GET /status`.
    pub fn status(&self) -> Result<ClusterStatus, Failure> {
        self.get(&format!("{BASE}/status"))
    }

    /// `POST /jobs`, tried again while the master is busy or the connection breaks.
    pub fn submit(&self, request: &SubmitRequest) -> Result<SubmitResponse, Failure> {
        let mut request = request.clone();
        let request_id = request.request_id.get_or_insert_with(random_id).clone();
        let body = encode(&request)?;
        let mut waits = SUBMIT_BACKOFF_MS.into_iter();
        loop {
            let sent =
                self.backend.call(&Request::post(format!("{BASE}/jobs"), Some(body.clone())));
            let failure = match sent {
                Ok(response) if response.status < 300 => return self.decode(&response),
                Ok(response) => {
                    let failure = self.refusal(&response);
                    if !failure.code.is_some_and(ErrorCode::is_temporary) {
                        return Err(failure);
                    }
                    failure
                }
                Err(error @ BackendError::Unreachable { .. }) => return Err(unreachable(&error)),
                Err(error) => unreachable(&error).hint(format!(
                    "the job may have been accepted: the same command with --request-id \
                     {request_id} gives the same job"
                )),
            };
            match waits.next() {
                None => return Err(failure),
                Some(ms) => std::thread::sleep(Duration::from_millis(ms)),
            }
        }
    }

    /// `GET /jobs/{id}`, answered when the job has ended or after `wait_ms`.
    pub fn job(&self, job: JobRef, wait_ms: Option<u64>) -> Result<JobView, Failure> {
        self.get(&format!("{BASE}/jobs/{}{}", job.number(), wait_query(wait_ms)))
    }

    /// `POST /jobs/{id}/cancel`.
    pub fn cancel_job(&self, job: JobRef) -> Result<CancelResponse, Failure> {
        self.post(&format!("{BASE}/jobs/{}/cancel", job.number()))
    }

    /// `GET /tasks`.
    pub fn tasks(&self, query: &TaskQuery) -> Result<TaskPage, Failure> {
        self.get(&format!("{BASE}/tasks{}", task_query(query)))
    }

    /// `GET /tasks/{id}`, answered when the task has ended or after `wait_ms`.
    pub fn task(&self, task: &TaskRef, wait_ms: Option<u64>) -> Result<TaskDetail, Failure> {
        self.get(&format!("{BASE}/tasks/{task}{}", wait_query(wait_ms)))
    }

    /// `GET /tasks/{id}/explain`.
    pub fn explain(&self, task: &TaskRef) -> Result<Explanation, Failure> {
        self.get(&format!("{BASE}/tasks/{task}/explain"))
    }

    /// `POST /tasks/{id}/cancel`.
    pub fn cancel_task(&self, task: &TaskRef) -> Result<CancelResponse, Failure> {
        self.post(&format!("{BASE}/tasks/{task}/cancel"))
    }

    /// `GET /tasks/{id}/logs` with a query such as `follow=true`.
    pub fn logs(&self, task: &TaskRef, query: &str) -> Result<LogReader, Failure> {
        let body = self.open(&format!("{BASE}/tasks/{task}/logs?{query}"))?;
        Ok(LogReader { lines: BufReader::new(body), buffer: Vec::new() })
    }

    /// `GET /tasks/{id}/files`.
    pub fn files(&self, task: &TaskRef) -> Result<FileList, Failure> {
        self.get(&format!("{BASE}/tasks/{task}/files"))
    }

    /// `GET /tasks/{id}/files/{path}`.
    pub fn file(&self, task: &TaskRef, path: &str) -> Result<Box<dyn Read + Send>, Failure> {
        let path = path.split('/').map(escape).collect::<Vec<_>>().join("/");
        self.open(&format!("{BASE}/tasks/{task}/files/{path}"))
    }

    /// `GET /workers`.
    pub fn workers(&self) -> Result<WorkerList, Failure> {
        self.get(&format!("{BASE}/workers"))
    }

    /// `GET /workers/{id}`.
    pub fn worker(&self, id: &str) -> Result<WorkerView, Failure> {
        self.get(&format!("{BASE}/workers/{}", escape(id))).map_err(|failure| match failure.code {
            Some(ErrorCode::WorkerNotFound) => worker_not_found(id),
            _ => failure,
        })
    }

    /// `GET /queue`.
    pub fn queue(&self) -> Result<QueueView, Failure> {
        self.get(&format!("{BASE}/queue"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.send(&Request::get(path))?;
        self.decode(&response)
    }

    fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.send(&Request::post(path, None))?;
        self.decode(&response)
    }

    fn send(&self, request: &Request) -> Result<Response, Failure> {
        self.backend.call(request).map_err(|error| unreachable(&error))
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read + Send>, Failure> {
        let mut stream =
            self.backend.stream(&Request::get(path)).map_err(|error| unreachable(&error))?;
        if stream.status < 300 {
            return Ok(stream.body);
        }
        let mut body = Vec::new();
        // An error's body is small; a broken one leaves the status to tell.
        let _ = stream.body.by_ref().take(64 << 10).read_to_end(&mut body);
        Err(self.refusal(&Response { status: stream.status, body }))
    }

    fn decode<T: DeserializeOwned>(&self, response: &Response) -> Result<T, Failure> {
        if response.status >= 300 {
            return Err(self.refusal(response));
        }
        serde_json::from_slice(&response.body).map_err(|error| {
            Failure::new(format!("cannot read the answer of {}: {error}", self.address()))
                .hint("is it a CloudAI master of this version? 'cloudai doctor' looks")
        })
    }

    /// What a master said instead of yes.
    fn refusal(&self, response: &Response) -> Failure {
        let Ok(body) = serde_json::from_slice::<ErrorBody>(&response.body) else {
            return Failure::new(format!(
                "{} answered with HTTP status {} and no words of a CloudAI master",
                self.address(),
                response.status
            ))
            .hint("check --master-url and CLOUDAI_URL");
        };
        let error = body.error;
        let message = match &error.field {
            Some(field) if !error.message.contains(field.as_str()) => {
                format!("{field}: {}", error.message)
            }
            _ => error.message,
        };
        let flag = error.field.as_deref().and_then(flag_of);
        let by_flag = || flag.map(|flag| format!("{flag} sets it"));
        let hint = error.hint.or_else(by_flag);
        Failure { hint, code: Some(error.code), ..Failure::new(message) }
    }
}

/// The one sentence for a worker that nobody knows.
pub(crate) fn worker_not_found(id: &str) -> Failure {
    Failure {
        code: Some(ErrorCode::WorkerNotFound),
        ..Failure::new(format!("Worker '{id}' not found"))
            .hint("'workers' lists those that have registered")
    }
}

fn unreachable(error: &BackendError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        BackendError::Unreachable { .. } => {
            failure.hint("start one with 'cloudai up', or name it with --master-url or CLOUDAI_URL")
        }
        BackendError::Broken { .. } => failure.hint("'cloudai doctor' tells whether it is up"),
    }
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))
}

/// 128 bits that no other submit has; the standard library seeds its hasher from the system.
fn random_id() -> String {
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}

fn wait_query(wait_ms: Option<u64>) -> String {
    wait_ms.map_or_else(String::new, |ms| format!("?wait_ms={ms}"))
}

fn task_query(query: &TaskQuery) -> String {
    let limit = query.limit.map(|limit| limit.to_string());
    let pairs = [
        ("status", query.status.map(|status| status.name().to_owned())),
        ("job", query.job.clone()),
        ("worker", query.worker.clone()),
        ("name", query.name.clone()),
        ("user", query.user.clone()),
        ("limit", limit),
        ("cursor", query.cursor.clone()),
    ];
    let given = pairs
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key}={}", escape(&value))));
    let text = given.collect::<Vec<_>>().join("&");
    if text.is_empty() { text } else { format!("?{text}") }
}

/// Percent-encoding of everything but the unreserved characters of RFC 3986.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// A log, piece by piece.
pub struct LogReader {
    lines: BufReader<Box<dyn Read + Send>>,
    buffer: Vec<u8>,
}

impl LogReader {
    /// The next piece or the end. `None` when the answer was cut off before its end.
    pub fn next_item(&mut self) -> Option<LogItem> {
        loop {
            self.buffer.clear();
            let mut line = (&mut self.lines).take(LOG_LINE_BYTES_MAX);
            let read = line.read_until(b'\n', &mut self.buffer).ok()?;
            if read == 0 {
                return None;
            }
            if self.buffer.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return serde_json::from_slice(&self.buffer).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_url_is_escaped() {
        assert_eq!(escape("a b/ü?"), "a%20b%2F%C3%BC%3F");
        let query =
            TaskQuery { name: Some("x&limit=9".into()), limit: Some(5), ..TaskQuery::default() };
        assert_eq!(task_query(&query), "?name=x%26limit%3D9&limit=5");
        assert_eq!(task_query(&TaskQuery::default()), "");
    }

    #[test]
    fn request_ids_differ() {
        let (one, two) = (random_id(), random_id());
        assert_ne!(one, two);
        assert_eq!(one.len(), 32);
    }
}
