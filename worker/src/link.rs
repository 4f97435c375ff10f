//! The session stream to the master: opened with a hello, open once the master said welcome.
//! Knows the wire; knows no ledger. Read next: `session.rs`, which uses it.

use std::time::Duration;

use cloudai_model::{Monotonic, Session};
use cloudai_proto::cluster::{Refused, SessionDown, SessionUp, Welcome, session_down};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::telemetry;
use crate::uplink;

/// How long the master may take from the hello to its welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// How many messages wait for the connection; behind them, changes gather in the ledger and go out
/// in one report.
const UP_LEN_MAX: usize = 4;
/// The shortest heartbeat that a master may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// An open session.
#[derive(Debug)]
pub(crate) struct Link {
    /// As the master said.
    pub(crate) session: Session,
    /// When the hello was sent.
    pub(crate) hello_sent_at: Monotonic,
    /// Fires at once, then at the master's interval.
    pub(crate) heartbeat: Interval,
    /// Messages to the master.
    pub(crate) up: mpsc::Sender<SessionUp>,
    /// Messages from the master.
    pub(crate) down: Streaming<SessionDown>,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// No connection, or the call failed.
    #[error("{0}")]
    Unreachable(String),
    /// The master did not answer the hello.
    #[error("the master did not answer within {} s", WELCOME_TIMEOUT.as_secs())]
    Silent,
    /// The master answered with something else than welcome.
    #[error("the master's answer makes no sense: {0}")]
    Nonsense(String),
    /// The master refused, in a word that this worker does not know.
    #[error("the master refuses: {0}")]
    Refused(String),
    /// The master does not know the session that the hello named.
    #[error("the master does not know this session any more")]
    SessionUnknown,
    /// Another process has the worker's id now.
    #[error("another process has this id: {0}")]
    Superseded(String),
    /// The hello makes no sense to the master.
    #[error("the master refuses this worker: {0}")]
    Invalid(String),
}

impl From<Refused> for LinkError {
    fn from(refused: Refused) -> Self {
        match refused.code.as_str() {
            "superseded" => Self::Superseded(refused.message),
            "unknown" => Self::SessionUnknown,
            "invalid" => Self::Invalid(refused.message),
            _ => Self::Refused(refused.message),
        }
    }
}

/// Connects, says hello and waits for the welcome.
pub(crate) async fn open(
    endpoint: Endpoint,
    hello: SessionUp,
    hello_sent_at: Monotonic,
) -> Result<Link, LinkError> {
    let unreachable = |error| LinkError::Unreachable(uplink::innermost(&error).to_string());
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let (up, receiver) = mpsc::channel(UP_LEN_MAX);
    up.try_send(hello).map_err(|_| LinkError::Silent)?;
    let opening = async {
        let mut client = uplink::client(channel);
        let call = client.session(ReceiverStream::new(receiver)).await;
        let unreachable = |status| LinkError::Unreachable(uplink::words(&status));
        let mut down = call.map_err(unreachable)?.into_inner();
        let first = down.message().await.map_err(unreachable)?;
        Ok::<_, LinkError>((first, down))
    };
    let (first, down) =
        tokio::time::timeout(WELCOME_TIMEOUT, opening).await.map_err(|_| LinkError::Silent)??;
    match first.and_then(|down| down.message) {
        Some(session_down::Message::Welcome(welcome)) if welcome.session != 0 => Ok(Link {
            session: Session(welcome.session),
            hello_sent_at,
            heartbeat: heartbeat(&welcome),
            up,
            down,
        }),
        Some(session_down::Message::Refused(refused)) => Err(refused.into()),
        other => Err(LinkError::Nonsense(format!("a welcome was due, {}", kind(other.as_ref())))),
    }
}

fn heartbeat(welcome: &Welcome) -> Interval {
    let asked = Duration::from_millis(welcome.heartbeat_ms.into());
    let period = if asked.is_zero() { telemetry::INTERVAL } else { asked.max(HEARTBEAT_MIN) };
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

const fn kind(message: Option<&session_down::Message>) -> &'static str {
    match message {
        None => "nothing came",
        Some(session_down::Message::Welcome(_)) => "one without a session came",
        Some(session_down::Message::Orders(_)) => "orders came",
        Some(session_down::Message::Refused(_)) => "a refusal came",
    }
}
