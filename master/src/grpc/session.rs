//! The session of one of our own workers: challenge, hello and welcome, then reports up and orders
//! down, on one stream. It must never take a hello that does not answer its stream's challenge.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloudai_failpoint::{ENABLED, failpoint};
use cloudai_master_core::{Answer, Command, FullReport, Rejection, StreamNo, WorkerHello};
use cloudai_model::{AttemptReport, ReportWhat, Session, WorkerId, WorkerKind};
use cloudai_proto::cluster::{
    Challenge, Refused, SessionDown, SessionUp, Welcome, session_down, session_up,
};
use cloudai_proto::convert::{Change, Hello, Orders, Report, from_wire, to_wire};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Outbound, Services, heart_status};
use crate::dispatch::{LINK_LEN_MAX, Link};
use crate::heart::HeartError;

/// How often a worker reports everything that it holds, in milliseconds.
const HEARTBEAT_MS: u32 = 5_000;
/// How long a new stream may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a stream is given up; the worker opens a new one.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Counts the session streams of this process.
#[derive(Debug, Default)]
pub(crate) struct SessionStreams(AtomicU64);

impl SessionStreams {
    fn next(&self) -> StreamNo {
        StreamNo(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// Challenges whoever is there; what he answers begins a session.
pub(super) fn open(services: Services, up: Streaming<SessionUp>) -> Outbound<SessionDown> {
    // The number first: who answers the challenge lived after it was given.
    let stream = services.sessions.next();
    let nonce = draw_nonce();
    let challenge = session_down::Message::Challenge(Challenge { nonce });
    let challenge = SessionDown { message: Some(challenge) };
    let greeted = greet(services, up, stream, nonce);
    let session = futures_util::TryStreamExt::try_flatten(futures_util::stream::once(greeted));
    Box::pin(tokio_stream::once(Ok(challenge)).chain(session))
}

/// The standard library's hasher is seeded by the operating system; that is all the chance that is
/// needed here.
fn draw_nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Waits for the hello that answers the challenge.
async fn read_hello(up: &mut Streaming<SessionUp>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, up.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
    match first.and_then(|first| first.message) {
        Some(session_up::Message::Hello(hello)) => Ok(from_wire::hello(hello)?),
        _ => Err(Status::invalid_argument("the first message of a session is hello")),
    }
}

/// Registers the worker and starts both directions.
async fn greet(
    services: Services,
    mut up: Streaming<SessionUp>,
    stream: StreamNo,
    nonce: u64,
) -> Result<Outbound<SessionDown>, Status> {
    let hello = read_hello(&mut up).await?;
    if hello.nonce != nonce {
        let words = "the hello does not answer the challenge of its stream";
        return Ok(Box::pin(tokio_stream::once(Ok(refused("late", words.to_owned())))));
    }
    failpoint!("master.hello.received");
    let worker = hello.worker.id.clone();
    let (orders, given) = mpsc::channel(LINK_LEN_MAX);
    let via = orders.downgrade();
    let link = Link { worker: worker.clone(), kind: WorkerKind::Session, orders };
    let command = Command::Hello(WorkerHello {
        id: hello.worker.id,
        session: hello.session,
        kind: WorkerKind::Session,
        address: hello.worker.address,
        capacity: hello.worker.capacity,
        volumes: hello.volumes,
        version: hello.version,
        held: Some(hello.held),
        degraded: hello.degraded,
        stream: Some(stream),
    });
    match services.heart.hello(command, link).await.map_err(|error| heart_status(&error))? {
        Answer::Welcome(session) => {
            failpoint!("master.hello.before_answer");
            let peer = Peer { services, worker, session, via };
            Ok(start(peer, up, given))
        }
        Answer::Rejected(rejection) => Ok(Box::pin(tokio_stream::once(Ok(refusal_of(&rejection))))),
        other => Err(Status::internal(format!("a hello was answered with {other:?}"))),
    }
}

/// Who is at the other end of a stream.
struct Peer {
    services: Services,
    worker: WorkerId,
    session: Session,
    /// Gone when another stream has taken this one's place.
    via: mpsc::WeakSender<Orders>,
}

fn start(
    peer: Peer,
    up: Streaming<SessionUp>,
    given: mpsc::Receiver<Orders>,
) -> Outbound<SessionDown> {
    let welcome = Welcome { session: peer.session.0, heartbeat_ms: HEARTBEAT_MS };
    let welcome = SessionDown { message: Some(session_down::Message::Welcome(welcome)) };
    // What the reading side has to say ends the stream: at most one message.
    let (last_word, last) = mpsc::channel(1);
    let shutdown = peer.services.shutdown.clone();
    tokio::spawn(async move {
        let reading = read(&peer, up);
        let ended = tokio::select! {
            ended = reading => ended,
            () = shutdown.cancelled() => None,
        };
        if let Some(refusal) = ended {
            // A peer that is gone does not read it.
            drop(last_word.send(refusal).await);
        }
    });
    let in_parts = |orders: Orders| tokio_stream::iter(to_wire::orders_in_parts(&orders));
    let orders = ReceiverStream::new(given);
    let orders = futures_util::StreamExt::flat_map(orders, in_parts).map(Last::Word);
    // A link that the heart dropped (a newer one stands) ends the stream as well.
    let orders = orders.chain(tokio_stream::once(Last::End));
    // The end of the reading side is an item of its own, so that it ends the merged stream.
    let last = ReceiverStream::new(last).map(Last::Word).chain(tokio_stream::once(Last::End));
    let merged = last.merge(orders).map_while(|item| match item {
        Last::Word(message) => Some(Ok(message)),
        Last::End => None,
    });
    Box::pin(tokio_stream::once(Ok(welcome)).chain(merged))
}

enum Last {
    Word(SessionDown),
    End,
}

/// Takes reports until the worker goes or is not wanted any more.
async fn read(peer: &Peer, mut up: Streaming<SessionUp>) -> Option<SessionDown> {
    let Peer { services, worker, session, .. } = peer;
    loop {
        let message = match tokio::time::timeout(SILENCE_MAX, up.message()).await {
            Ok(Ok(Some(message))) => message.message?,
            Ok(Ok(None)) => return None,
            Ok(Err(status)) => {
                tracing::debug!("session of worker {worker} broke: {}", status.message());
                return None;
            }
            Err(_) => {
                tracing::warn!("worker {worker} is silent; its session is closed");
                return None;
            }
        };
        let answer = match message {
            session_up::Message::Report(report) => match from_wire::report(report) {
                Ok(report) => take_report(peer, report).await,
                Err(error) => return Some(refused("invalid", error.to_string())),
            },
            session_up::Message::Goodbye(goodbye) => {
                tracing::info!("Worker {worker} says goodbye: {}", goodbye.reason);
                let command = Command::Goodbye { worker: worker.clone(), session: *session };
                drop(services.heart.command(command).await);
                return None;
            }
            session_up::Message::Hello(_) => {
                return Some(refused("invalid", "a second hello on one stream".to_owned()));
            }
        };
        match answer {
            Ok(Answer::Rejected(rejection)) => return Some(refusal_of(&rejection)),
            Ok(_) => {}
            // The report was not kept: the worker comes again with everything that it holds.
            Err(error) => {
                tracing::warn!("a report of worker {worker} was not kept: {error}");
                return None;
            }
        }
    }
}

async fn take_report(peer: &Peer, report: Report) -> Result<Answer, HeartError> {
    let Peer { services, worker, session, via } = peer;
    let mut changes: Vec<AttemptReport> = Vec::with_capacity(report.changes.len());
    let mut notes = Vec::new();
    for change in report.changes {
        match change {
            Change::State(state) => changes.push(state),
            Change::Note { attempt, at, text } => notes.push((attempt, at, text)),
        }
    }
    if !notes.is_empty() {
        let files = Arc::clone(&services.files);
        // Notes are for people: one that cannot be written is not worth a report.
        drop(tokio::task::spawn_blocking(move || {
            for (attempt, at, text) in notes {
                if let Err(error) = files.append_note(attempt, at, &text) {
                    tracing::debug!("cannot keep a note of {attempt}: {error}");
                }
            }
        }));
    }
    let full = report.full.map(|full| {
        tracing::debug!("Heartbeat from worker {worker}: {} held", full.held.len());
        services.usage.set(worker, full.usage);
        FullReport { held: full.held, degraded: full.degraded }
    });
    let kinds = if ENABLED { kinds_of(&changes, full.as_ref()) } else { Vec::new() };
    kinds.iter().for_each(before_report);
    let command = Command::Report {
        worker: worker.clone(),
        session: Some(*session),
        sequence: report.sequence,
        changes,
        full,
    };
    let answer = services.heart.report(command, via.clone()).await;
    kinds.iter().for_each(after_report);
    answer
}

fn kinds_of(changes: &[AttemptReport], full: Option<&FullReport>) -> Vec<ReportWhat> {
    let held = full.map(|full| full.held.as_slice()).unwrap_or_default();
    changes.iter().chain(held).map(|report| report.what.clone()).collect()
}

#[allow(clippy::match_same_arms, reason = "in a build that is shipped each point is nothing")]
fn before_report(kind: &ReportWhat) {
    match kind {
        ReportWhat::Accepted => failpoint!("master.report_accepted.received"),
        ReportWhat::Started(_) => failpoint!("master.report_started.received"),
        ReportWhat::Ended { .. } => failpoint!("master.report_ended.received"),
    }
}

#[allow(clippy::match_same_arms, reason = "in a build that is shipped each point is nothing")]
fn after_report(kind: &ReportWhat) {
    match kind {
        ReportWhat::Accepted => failpoint!("master.report_accepted.taken"),
        ReportWhat::Started(_) => failpoint!("master.report_started.taken"),
        ReportWhat::Ended { .. } => failpoint!("master.report_ended.taken"),
    }
}

fn refusal_of(rejection: &Rejection) -> SessionDown {
    let code = match rejection {
        Rejection::Superseded(_) => "superseded",
        Rejection::NotRegistered(_) => "unknown",
        Rejection::LateHello(_) => "late",
        _ => "invalid",
    };
    refused(code, rejection.to_string())
}

fn refused(code: &str, message: String) -> SessionDown {
    let refused = Refused { code: code.to_owned(), message };
    SessionDown { message: Some(session_down::Message::Refused(refused)) }
}
