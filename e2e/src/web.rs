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
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(TIMEOUT)).build().into()
}

/// `GET`; `None` when nobody answers.
pub(crate) fn get(url: &str) -> Option<Answer> {
    agent().get(url).call().ok().map(answer)
}

/// `POST` of a body as it is.
pub(crate) fn post(url: &str, body: &[u8]) -> Answer {
    let sent = agent().post(url).content_type("application/json").send(body);
    answer(sent.unwrap_or_else(|error| panic!("{url} does not answer: {error}")))
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec().unwrap_or_default();
    Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
}
