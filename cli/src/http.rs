//! The way to a master over HTTP.
//!
//! Without TLS: a master binds to loopback unless its administrator says otherwise.

use std::io::Read;
use std::time::Duration;

use cloudai_api::WAIT_MS_MAX;
use ureq::Agent;
use ureq::http::Response as HttpResponse;

use crate::backend::{
    Backend, BackendError, Method, RESPONSE_BYTES_MAX, Request, Response, Stream,
};
use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence: longer than any wait that a request may ask for, and than the 15 s between the
/// signs of life of a stream. A master that is silent for longer is gone.
const SILENCE_MAX: Duration = Duration::from_millis(WAIT_MS_MAX + 20_000);

/// A master at a URL.
#[derive(Debug, Clone)]
pub struct HttpBackend {
    url: String,
    agent: Agent,
}

impl HttpBackend {
    /// A backend for `http://host:port`. Opens no connection yet.
    pub fn new(url: &str) -> Result<Self, Failure> {
        if url.starts_with("https://") {
            return Err(Failure::usage(format!("cannot speak TLS to {url}")).hint(
                "name the master as http://host:port; put TLS in front with a proxy or ssh",
            ));
        }
        let place = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let odd = place.contains("://") || place.contains(char::is_whitespace);
        if place.is_empty() || place.starts_with(':') || odd {
            return Err(Failure::usage(format!("'{url}' is not the URL of a master"))
                .hint("give for example http://127.0.0.1:8080"));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_MAX))
            .user_agent(concat!("cloudai/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { url: format!("http://{place}"), agent })
    }

    fn send(&self, request: &Request) -> Result<HttpResponse<ureq::Body>, BackendError> {
        let url = format!("{}{}", self.url, request.path);
        let sent = match (request.method, &request.body) {
            (Method::Get, _) => self.agent.get(&url).call(),
            (Method::Post, Some(body)) => {
                self.agent.post(&url).content_type("application/json").send(body.as_slice())
            }
            (Method::Post, None) => self.agent.post(&url).send_empty(),
        };
        sent.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &ureq::Error) -> BackendError {
        let address = self.url.clone();
        match error {
            ureq::Error::HostNotFound => {
                BackendError::Unreachable { address, why: "no such host".to_owned() }
            }
            ureq::Error::ConnectionFailed | ureq::Error::Timeout(ureq::Timeout::Connect) => {
                BackendError::Unreachable { address, why: "no answer".to_owned() }
            }
            ureq::Error::BadUri(why) => BackendError::Unreachable { address, why: why.clone() },
            ureq::Error::Io(io) => {
                let why = plain_io(io);
                match io.kind() {
                    std::io::ErrorKind::ConnectionRefused
                    | std::io::ErrorKind::HostUnreachable
                    | std::io::ErrorKind::NetworkUnreachable
                    | std::io::ErrorKind::AddrNotAvailable => {
                        BackendError::Unreachable { address, why }
                    }
                    _ => BackendError::Broken { address, why },
                }
            }
            other => BackendError::Broken { address, why: other.to_string() },
        }
    }
}

/// The system's words without its number: "connection refused".
fn plain_io(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}

impl Backend for HttpBackend {
    fn call(&self, request: &Request) -> Result<Response, BackendError> {
        let mut answer = self.send(request)?;
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(RESPONSE_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| self.error(&error))?;
        Ok(Response { status, body })
    }

    fn stream(&self, request: &Request) -> Result<Stream, BackendError> {
        let answer = self.send(request)?;
        let status = answer.status().as_u16();
        let body: Box<dyn Read + Send> = Box::new(answer.into_body().into_reader());
        Ok(Stream { status, body })
    }

    fn address(&self) -> String {
        self.url.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_that_is_not_there_is_unreachable_and_not_broken() {
        // A port that was free a moment ago and that nobody listens on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let backend = HttpBackend::new(&format!("127.0.0.1:{port}")).unwrap();
        let error = backend.call(&Request::get("/api/v1/health")).unwrap_err();
        let want =
            format!("cannot reach the master at http://127.0.0.1:{port}: connection refused");
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["", "http://", "http://:80", "a b", "https://master"] {
            assert_eq!(HttpBackend::new(url).unwrap_err().exit, crate::exit::USAGE, "{url}");
        }
    }
}
