//! The HTTP API as a program in any language would call it.

use std::time::Duration;

use serde_json::Value;

/// Longer than any wait that a test asks the master for.
const TIMEOUT: Duration = Duration::from_secs(90);

/// An answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is no JSON.
    pub body: Value,
}

impl Answer {
    /// Fails unless it is an error with this status and code whose message holds `text`.
    #[track_caller]
    pub fn check_error(&self, status: u16, code: &str, text: &str) {
        let error = &self.body["error"];
        assert_eq!((self.status, error["code"].as_str()), (status, Some(code)), "{}", self.body);
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "'{text}' is missing in: {message}");
    }
}

fn agent() -> ureq::Agent {
    agent_with(TIMEOUT)
}

fn agent_with(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(timeout)).build().into()
}

/// A client that gives up soon, so that a master that stands still is no wall for it.
pub struct Api {
    agent: ureq::Agent,
    base: String,
}

impl Api {
    /// A client of the master that listens there.
    pub fn new(http_address: &str, timeout: Duration) -> Self {
        let base = format!("http://{http_address}/api/v1");
        Self { agent: agent_with(timeout), base }
    }

    /// `GET`; `None` when there is no whole answer in time.
    pub fn get(&self, path: &str) -> Option<Answer> {
        self.agent.get(format!("{}{path}", self.base)).call().ok().and_then(answer)
    }

    /// `POST`; `None` when there is no whole answer in time.
    pub fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let sent = request.content_type("application/json").send(body.to_string().as_bytes());
        sent.ok().and_then(answer)
    }
}

/// `GET`; `None` when nobody answers.
pub(crate) fn get(url: &str) -> Option<Answer> {
    agent().get(url).call().ok().and_then(answer)
}

/// `GET` of what is no JSON: the status and the bytes; `None` when nobody answers all of it.
pub(crate) fn get_bytes(url: &str) -> Option<(u16, Vec<u8>)> {
    agent().get(url).call().ok().and_then(bytes)
}

/// `POST` of a body as it is; `None` when nobody answers.
pub(crate) fn post(url: &str, body: &[u8]) -> Option<Answer> {
    let sent = agent().post(url).content_type("application/json").send(body);
    sent.ok().and_then(answer)
}

fn answer(response: ureq::http::Response<ureq::Body>) -> Option<Answer> {
    let (status, body) = bytes(response)?;
    Some(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn bytes(mut response: ureq::http::Response<ureq::Body>) -> Option<(u16, Vec<u8>)> {
    let status = response.status().as_u16();
    Some((status, response.body_mut().read_to_vec().ok()?))
}
