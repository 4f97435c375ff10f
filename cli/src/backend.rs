//! How a command reaches a master: over HTTP from a shell, or within the process at `master>`.
//!
//! A backend carries bytes and knows nothing of what they mean. It never retries: whoever calls it
//! knows whether that is safe. Read next: `client.rs`, which gives the bytes their types.

use std::io::Read;

use thiserror::Error;

/// The two methods that the API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes.
    Post,
}

impl Method {
    /// Its name in HTTP.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, already percent-encoded: `/api/v1/tasks?limit=5`.
    pub path: String,
    /// JSON, or nothing.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A request that reads.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::Get, path: path.into(), body: None }
    }

    /// A request that changes something.
    pub fn post(path: impl Into<String>, body: Option<Vec<u8>>) -> Self {
        Self { method: Method::Post, path: path.into(), body }
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most [`RESPONSE_BYTES_MAX`].
    pub body: Vec<u8>,
}

/// Largest whole answer, in bytes. A stream has no bound.
pub const RESPONSE_BYTES_MAX: u64 = 64 << 20;

/// An answer that comes bit by bit. Dropping it ends the request.
pub struct Stream {
    /// The HTTP status.
    pub status: u16,
    /// The body as it comes. A read blocks until there is more, or fails when the master is gone.
    pub body: Box<dyn Read + Send>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BackendError {
    /// Nothing was sent.
    #[error("cannot reach the master at {address}: {why}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The request may have been received, but its answer did not arrive.
    #[error("the connection to the master at {address} broke: {why}")]
    Broken {
        /// Where it is.
        address: String,
        /// What the system said.
        why: String,
    },
}

/// A way to a master.
pub trait Backend: Send + Sync {
    /// Sends a request and waits for the whole answer, an error status included.
    fn call(&self, request: &Request) -> Result<Response, BackendError>;

    /// Sends a request and gives the answer while it comes.
    fn stream(&self, request: &Request) -> Result<Stream, BackendError>;

    /// Where the master is, for messages.
    fn address(&self) -> String;
}
