//! Where the connection to the master stands: being opened, waiting for the next try, or open. It
//! must never lose a message when somebody stops waiting for it, and decides nothing. Read next:
//! `link.rs` (how one is opened) and `session.rs` (what is done about it).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use cloudai_proto::cluster::SessionDown;
use cloudai_proto::convert::to_wire;
use tonic::Status;

use crate::link::{Link, LinkError};

/// How long the end of the stream may take after the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;

/// Where the connection stands.
pub(crate) enum Connection {
    Opening(Opening),
    Waiting(Pin<Box<tokio::time::Sleep>>),
    Open(Box<Link>),
}

/// What a connection has to say.
pub(crate) enum Signal {
    Opened(Result<Link, LinkError>),
    TryAgain,
    Heartbeat,
    Down(Result<Option<SessionDown>, Status>),
    MaySend,
}

impl Connection {
    /// The next signal. Nothing is lost when it is dropped before it is ready.
    pub(crate) async fn next(&mut self, wants_to_send: bool) -> Signal {
        match self {
            Self::Opening(opening) => Signal::Opened(opening.await),
            Self::Waiting(pause) => {
                pause.await;
                Signal::TryAgain
            }
            Self::Open(link) => tokio::select! {
                message = link.down.message() => Signal::Down(message),
                _ = link.heartbeat.tick() => Signal::Heartbeat,
                permit = link.up.reserve(), if wants_to_send => match permit {
                    Ok(_) => Signal::MaySend,
                    Err(_) => Signal::Down(Ok(None)),
                },
            },
        }
    }
}

/// Sends the last message and waits until the master has seen the end of the stream; says whether
/// it has.
pub(crate) async fn say_goodbye(link: Link) -> bool {
    let Link { up, mut down, .. } = link;
    let goodbye = async {
        up.send(to_wire::goodbye("shutdown")).await.ok()?;
        drop(up);
        while down.message().await.ok()?.is_some() {}
        Some(())
    };
    let said = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.ok().flatten().is_some();
    if !said {
        tracing::debug!("The master did not end the session in time");
    }
    said
}
