//! The HTTP side: which call a request is, what goes wrong with it, and the answer on its way. It
//! never touches a container by itself: `world.rs` does.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fault::{Call, Fault};
use super::journal::Asked;
use super::stream::{attach, events, logs, pull, streamed, wait};
use super::world::{Answer, State, World, plain};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is sent in place of an answer that makes sense.
const NONSENSE: &[u8] = b"\x16\x03\x01{{{ this is no answer";

/// How an engine stops to serve.
#[derive(Debug, Clone, Default)]
pub(super) struct Doors {
    /// When cancelled, no connection is taken any more, and each closes with its present answer.
    pub(super) shut: CancellationToken,
    /// When cancelled, nothing is served any more.
    pub(super) gone: CancellationToken,
    /// Every connection.
    pub(super) connections: TaskTracker,
}

/// Serves until the doors are shut.
pub(super) async fn serve(world: Arc<World>, listener: UnixListener, doors: Doors) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = doors.shut.cancelled() => break,
            () = doors.gone.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let connection = connection(Arc::clone(&world), stream, doors.clone());
        let gone = doors.gone.clone();
        doors.connections.spawn(async move {
            gone.run_until_cancelled(connection).await;
        });
    }
    doors.connections.close();
}

async fn connection(world: Arc<World>, stream: UnixStream, doors: Doors) {
    let service = service_fn(|request| {
        let (world, gone) = (Arc::clone(&world), doors.gone.clone());
        // What was asked is done, though nobody may wait for it any more.
        let answer = tokio::spawn(answer(world, request, gone.clone()));
        async move {
            let answered = gone.run_until_cancelled(answer).await;
            answered.and_then(Result::ok).unwrap_or_else(|| Err(closed()))
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let serving = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut serving = std::pin::pin!(serving);
    // A connection that ends badly is what this engine is for.
    tokio::select! {
        _ = &mut serving => {}
        () = doors.shut.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// What a request asks for.
struct Ask {
    call: Call,
    /// The id of the container; empty when the call is about none.
    id: String,
    query: Vec<(String, String)>,
    body: Value,
}

impl Ask {
    async fn read(request: Request<Incoming>) -> Option<Self> {
        let path = request.uri().path().to_owned();
        let mut parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        if parts.first().is_some_and(|part| part.starts_with("v1.")) {
            parts.remove(0);
        }
        let (call, id) = match (request.method(), parts.as_slice()) {
            (&Method::GET | &Method::HEAD, ["_ping"]) => (Call::Ping, ""),
            (&Method::GET, ["version"]) => (Call::Version, ""),
            (&Method::GET, ["info"]) => (Call::Info, ""),
            (&Method::GET, ["events"]) => (Call::Events, ""),
            (&Method::POST, ["images", "create"]) => (Call::Pull, ""),
            (&Method::POST, ["containers", "create"]) => (Call::Create, ""),
            (&Method::GET, ["containers", "json"]) => (Call::List, ""),
            (&Method::POST, ["containers", id, "attach"]) => (Call::Attach, *id),
            (&Method::POST, ["containers", id, "start"]) => (Call::Start, *id),
            (&Method::POST, ["containers", id, "wait"]) => (Call::Wait, *id),
            (&Method::POST, ["containers", id, "kill"]) => (Call::Kill, *id),
            (&Method::GET, ["containers", id, "json"]) => (Call::Inspect, *id),
            (&Method::GET, ["containers", id, "logs"]) => (Call::Logs, *id),
            (&Method::GET, ["containers", id, "archive"]) => (Call::Archive, *id),
            (&Method::DELETE, ["containers", id]) => (Call::Remove, *id),
            _ => return None,
        };
        let id = id.to_owned();
        let query = query(request.uri().query().unwrap_or_default());
        let id = if call == Call::Events { watched(&query)? } else { id };
        let body = request.into_body().collect().await.ok()?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(Self { call, id, query, body })
    }

    fn parameter(&self, key: &str) -> &str {
        let found = self.query.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }

    fn image(&self) -> String {
        let (image, tag) = (self.parameter("fromImage"), self.parameter("tag"));
        plain(&if tag.is_empty() { image.to_owned() } else { format!("{image}:{tag}") })
    }

    fn subject(&self, state: &State) -> String {
        match self.call {
            Call::Pull => self.image(),
            Call::Create => self.parameter("name").to_owned(),
            _ => state.name(&self.id),
        }
    }
}

/// The container whose events are asked for.
fn watched(query: &[(String, String)]) -> Option<String> {
    let (_, filters) = query.iter().find(|(name, _)| name == "filters")?;
    let filters: Value = serde_json::from_str(filters).ok()?;
    filters["container"][0].as_str().map(str::to_owned)
}

/// The parameters of a query, decoded.
fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decoded(key), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, taken) = match (first, escaped) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) => (b' ', 1),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn closed() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

/// Answers a request, or does with it what the fault says; an error closes the connection.
async fn answer(
    world: Arc<World>,
    mut request: Request<Incoming>,
    gone: CancellationToken,
) -> io::Result<Response<Body>> {
    let upgrade = hyper::upgrade::on(&mut request);
    let Some(ask) = Ask::read(request).await else {
        return Ok(plain_answer((404, Some(json!({"message": "page not found"})))));
    };
    world.until(|state| (!state.frozen).then_some(())).await;
    let (fault, heals) = world.change(|state| {
        let subject = ask.subject(state);
        let fault = state.faults.next(ask.call, &subject);
        let detail = if ask.call == Call::Kill { ask.parameter("signal") } else { "" };
        let detail = detail.to_owned();
        state.journal.asked.push(Asked { call: ask.call, subject, detail, fault });
        (fault, state.heals)
    });
    let healed = || world.until(move |state| (state.heals > heals).then_some(()));
    match fault {
        Some(Fault::Close) => return Err(closed()),
        Some(Fault::Refuse(status)) => {
            let message = json!({"message": "the fake engine does not want to"});
            return Ok(plain_answer((status, Some(message))));
        }
        Some(Fault::Hang) => {
            healed().await;
            return Err(closed());
        }
        Some(Fault::Late(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Hold) => {
            world.until(|state| state.let_go.contains(&ask.call).then_some(())).await;
        }
        _ => {}
    }
    let is_cut = fault == Some(Fault::Cut);
    let response = act(&world, &ask, is_cut, upgrade, &gone);
    match fault {
        Some(Fault::Lose) => Err(closed()),
        Some(Fault::HangAfter) => {
            healed().await;
            Err(closed())
        }
        Some(Fault::Garbage) => Ok(Response::new(full(Bytes::from_static(NONSENSE)))),
        _ => Ok(response),
    }
}

/// Does what was asked, and gives the answer.
fn act(
    world: &Arc<World>,
    ask: &Ask,
    is_cut: bool,
    upgrade: hyper::upgrade::OnUpgrade,
    gone: &CancellationToken,
) -> Response<Body> {
    let id = ask.id.as_str();
    let simple = match ask.call {
        Call::Ping => return Response::new(full(Bytes::from_static(b"OK"))),
        Call::Version => (200, Some(version())),
        Call::Info => (200, Some(info())),
        Call::Create => world.change(|state| state.create(ask.parameter("name"), &ask.body)),
        Call::Start => start(world, id),
        Call::Inspect => world.look(|state| state.inspect(id)),
        Call::Kill => world.change(|state| state.kill(id, ask.parameter("signal"))),
        Call::Remove => {
            let force = ask.parameter("force") == "true" || ask.parameter("force") == "1";
            world.change(|state| state.remove(id, force))
        }
        Call::List => {
            let filters = serde_json::from_str(ask.parameter("filters")).unwrap_or(Value::Null);
            let all = ask.parameter("all") == "true" || ask.parameter("all") == "1";
            world.look(|state| state.list(&filters, all))
        }
        Call::Pull => return streamed(is_cut, pull(Arc::clone(world), ask.image()), gone),
        Call::Attach | Call::Wait | Call::Logs | Call::Archive
            if world.look(|state| !state.containers.contains_key(id)) =>
        {
            (404, Some(json!({"message": format!("No such container: {id}")})))
        }
        Call::Attach => return attach(world, id, is_cut, upgrade, gone),
        Call::Wait => return streamed(is_cut, wait(Arc::clone(world), id.to_owned()), gone),
        Call::Logs => {
            let follow = ask.parameter("follow") == "true" || ask.parameter("follow") == "1";
            return streamed(is_cut, logs(Arc::clone(world), id.to_owned(), follow), gone);
        }
        Call::Events => {
            let until = ask.parameter("until").parse().unwrap_or(f64::INFINITY);
            let events = events(Arc::clone(world), id.to_owned(), until);
            return streamed(is_cut, events, gone);
        }
        Call::Archive => {
            let files = world.look(|state| state.containers[id].program.files.clone());
            return cut_or_whole(is_cut, StatusCode::OK, archive(&files));
        }
    };
    let (status, body) = simple;
    let text = body.map(|body| body.to_string().into_bytes());
    match text {
        Some(text) => cut_or_whole(is_cut, status_code(status), text),
        None => plain_answer((status, None)),
    }
}

fn start(world: &Arc<World>, id: &str) -> Answer {
    let (answer, is_new) = world.change(|state| state.start(id));
    if is_new {
        tokio::spawn(Arc::clone(world).live(id.to_owned()));
    }
    answer
}

fn version() -> Value {
    json!({
        "Version": "20.10.24-fake",
        "ApiVersion": "1.41",
        "MinAPIVersion": "1.12",
        "Os": "linux",
        "Arch": "amd64",
        "Components": [{"Name": "Engine", "Version": "20.10.24-fake"}],
    })
}

fn info() -> Value {
    json!({
        "ID": "fake",
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "extfs"]],
        "DockerRootDir": "/var/lib/docker",
        "NCPU": 64,
        "Plugins": {"Log": ["local", "json-file"]},
        "Runtimes": {},
    })
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("the engine's own statuses are valid")
}

fn plain_answer((status, body): Answer) -> Response<Body> {
    let bytes = body.map_or_else(Bytes::new, |body| body.to_string().into_bytes().into());
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status_code(status);
    response
}

/// A whole body, or the first half of it.
fn cut_or_whole(is_cut: bool, status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let bytes = Bytes::from(bytes);
    let body = if is_cut {
        let half = bytes.slice(..bytes.len() / 2);
        let (sender, chunks) = mpsc::channel(2);
        // Both have room.
        let _ = sender.try_send(Ok(Frame::data(half)));
        let _ = sender.try_send(Err(closed()));
        StreamBody::new(ReceiverStream::new(chunks)).boxed_unsync()
    } else {
        full(bytes)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("it is ASCII"));
    response
}

/// `/output` as the engine packs it.
fn archive(files: &[(String, String)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, text: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let added = archive.append_data(&mut header, path, text);
        added.expect("memory takes everything");
    };
    add("output/", tar::EntryType::Directory, b"");
    for (name, text) in files {
        add(&format!("output/{name}"), tar::EntryType::Regular, text.as_bytes());
    }
    archive.into_inner().expect("memory takes everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let pairs = query("filters=%7B%22a%22%3A1%7D&name=a+b&all=true");
        assert_eq!(pairs[0], ("filters".to_owned(), "{\"a\":1}".to_owned()));
        assert_eq!(pairs[1].1, "a b");
        assert_eq!(decoded("100%"), "100%");
    }
}
