//! The session stream to the master: it begins with the master's challenge, which a hello answers,
//! and is open once the master said welcome.
//! Knows the wire; knows no ledger. Read next: `session.rs`, which uses it.

use std::time::Duration;

use cloudai_model::{Monotonic, Session};
use cloudai_proto::cluster::{Refused, SessionDown, SessionUp, Welcome, session_down};
use cloudai_proto::convert::{Hello, to_wire};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::telemetry;
use crate::uplink;

/// How long the master may take from the connection to its welcome.
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

/// Connects, answers the challenge with the hello and waits for the welcome. `said_at` is when the
/// hello was made: what it says was true then, and leases begin anew from then.
pub(crate) async fn open(
    endpoint: Endpoint,
    hello: Hello,
    said_at: Monotonic,
) -> Result<Link, LinkError> {
    let unreachable = |error| LinkError::Unreachable(uplink::innermost(&error).to_string());
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let (up, receiver) = mpsc::channel(UP_LEN_MAX);
    let opening = async {
        let mut client = uplink::client(channel);
        let call = client.session(ReceiverStream::new(receiver)).await;
        let unreachable = |status| LinkError::Unreachable(uplink::words(&status));
        let mut down = call.map_err(unreachable)?.into_inner();
        let nonce = match next(&mut down).await? {
            Some(session_down::Message::Challenge(challenge)) => challenge.nonce,
            other => return Err(unexpected("a challenge", other)),
        };
        let hello = to_wire::hello(&Hello { nonce, ..hello });
        up.try_send(hello).map_err(|_| LinkError::Silent)?;
        match next(&mut down).await? {
            Some(session_down::Message::Welcome(welcome)) if welcome.session != 0 => {
                Ok((welcome, down))
            }
            other => Err(unexpected("a welcome", other)),
        }
    };
    let opened = tokio::time::timeout(WELCOME_TIMEOUT, opening).await;
    let (welcome, down) = opened.map_err(|_| LinkError::Silent)??;
    let (session, heartbeat) = (Session(welcome.session), heartbeat(&welcome));
    Ok(Link { session, hello_sent_at: said_at, heartbeat, up, down })
}

async fn next(
    down: &mut Streaming<SessionDown>,
) -> Result<Option<session_down::Message>, LinkError> {
    let message = down.message().await;
    let message = message.map_err(|status| LinkError::Unreachable(uplink::words(&status)))?;
    Ok(message.and_then(|down| down.message))
}

fn unexpected(due: &str, came: Option<session_down::Message>) -> LinkError {
    match came {
        Some(session_down::Message::Refused(refused)) => refused.into(),
        other => LinkError::Nonsense(format!("{due} was due, {}", kind(other.as_ref()))),
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
        Some(session_down::Message::Challenge(_)) => "a challenge came",
        Some(session_down::Message::Welcome(_)) => "a welcome without a session came",
        Some(session_down::Message::Orders(_)) => "orders came",
        Some(session_down::Message::Refused(_)) => "a refusal came",
    }
}
