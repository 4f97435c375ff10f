//! The API for the prompt of the same process: the router is called without a connection, so that
//! `master>` and the shell go the same way from the first byte of a request on.
//!
//! Calls block: they come from a thread that is no thread of the runtime.

use std::io::{self, Read};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{self, StatusCode, header};
use cloudai_cli::{Backend, BackendError, RESPONSE_BYTES_MAX, Request, Response, Stream};
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tower::ServiceExt as _;

/// A way to the master of this process; `runtime` runs its requests.
pub(crate) fn backend(router: Router, runtime: Handle) -> impl Backend {
    Inside { router, runtime }
}

/// What the master of this process is called.
const NAME: &str = "this master";

struct Inside {
    router: Router,
    runtime: Handle,
}

impl Inside {
    fn send(&self, request: &Request) -> Result<(StatusCode, Body), BackendError> {
        let mut made = http::Request::builder()
            .method(request.method.name())
            .uri(&request.path)
            .header(header::HOST, "localhost");
        if request.body.is_some() {
            made = made.header(header::CONTENT_TYPE, "application/json");
        }
        let body = request.body.clone().map_or_else(Body::empty, Body::from);
        let made = made.body(body).map_err(broken)?;
        let answer = self.runtime.block_on(self.router.clone().oneshot(made)).map_err(broken)?;
        let (head, body) = answer.into_parts();
        Ok((head.status, body))
    }
}

fn broken(error: impl std::fmt::Display) -> BackendError {
    BackendError::Broken { address: NAME.to_owned(), why: error.to_string() }
}

impl Backend for Inside {
    fn call(&self, request: &Request) -> Result<Response, BackendError> {
        let (status, body) = self.send(request)?;
        let limit = usize::try_from(RESPONSE_BYTES_MAX).unwrap_or(usize::MAX);
        let body = self.runtime.block_on(axum::body::to_bytes(body, limit)).map_err(broken)?;
        Ok(Response { status: status.as_u16(), body: body.into() })
    }

    fn stream(&self, request: &Request) -> Result<Stream, BackendError> {
        let (status, body) = self.send(request)?;
        let pieces = body.into_data_stream();
        let body = BodyReader { pieces, piece: Bytes::new(), runtime: self.runtime.clone() };
        Ok(Stream { status: status.as_u16(), body: Box::new(body) })
    }

    fn address(&self) -> String {
        NAME.to_owned()
    }
}

/// A body that is read while it comes.
struct BodyReader {
    pieces: axum::body::BodyDataStream,
    /// What is left of the piece that came last.
    piece: Bytes,
    runtime: Handle,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.pieces.next()) {
                None => return Ok(0),
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
            }
        }
        let length = self.piece.len().min(out.len());
        out[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
