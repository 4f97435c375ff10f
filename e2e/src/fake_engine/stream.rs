//! The answers that last: the end of a container, its output, and the pull of an image. Each ends
//! when nobody reads it any more, and none moves while the engine is frozen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::Pull;
use super::server::{Body, closed, full};
use super::world::{State, World};

type Chunks = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;
type BoxedWrite = Pin<Box<dyn Future<Output = Option<()>> + Send>>;

/// The pause between two pieces of a pull that trickles.
const TRICKLE_PAUSE: Duration = Duration::from_millis(20);

/// A body that comes piece by piece; when it is cut, it breaks behind its headers.
pub(super) fn streamed<F>(
    is_cut: bool,
    write: impl FnOnce(Chunks) -> F,
    gone: &CancellationToken,
) -> Response<Body>
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let (sender, chunks) = mpsc::channel(1);
    if is_cut {
        // It has room.
        let _ = sender.try_send(Err(closed()));
    }
    let (writing, gone) = (write(sender), gone.clone());
    tokio::spawn(async move {
        gone.run_until_cancelled(writing).await;
    });
    Response::new(StreamBody::new(ReceiverStream::new(chunks)).boxed_unsync())
}

/// Sends a piece; `None` when nobody reads any more.
async fn send(chunks: &Chunks, bytes: impl Into<Bytes>) -> Option<()> {
    chunks.send(Ok(Frame::data(bytes.into()))).await.ok()
}

pub(super) fn wait(world: Arc<World>, id: String) -> impl FnOnce(Chunks) -> BoxedWrite {
    move |chunks| {
        Box::pin(async move {
            let code = world
                .until(|state| {
                    let Some(container) = state.containers.get(&id) else { return Some(137) };
                    let code = container.inspect()["State"]["ExitCode"].as_i64();
                    (!container.is_running() && !state.frozen).then_some(code.unwrap_or(0))
                })
                .await;
            send(&chunks, format!("{{\"StatusCode\":{code}}}\n")).await
        })
    }
}

/// The events of a container from the engine's start on, until the time `until_s` of the clock.
pub(super) fn events(
    world: Arc<World>,
    id: String,
    until_s: f64,
) -> impl FnOnce(Chunks) -> BoxedWrite {
    move |chunks| {
        Box::pin(async move {
            let left_s = until_s - jiff::Timestamp::now().as_duration().as_secs_f64();
            let left = Duration::try_from_secs_f64(left_s).unwrap_or_default();
            let mut told = 0;
            while let Some(known) = world.look(|state| state.find_event(&id, told)) {
                send(&chunks, format!("{known}\n")).await?;
                told += 1;
            }
            let telling = async {
                loop {
                    let news = world.until(|state| state.find_event(&id, told)).await;
                    send(&chunks, format!("{news}\n")).await?;
                    told += 1;
                }
            };
            tokio::time::timeout(left, telling).await.unwrap_or(Some(()))
        })
    }
}

pub(super) fn logs(
    world: Arc<World>,
    id: String,
    follow: bool,
) -> impl FnOnce(Chunks) -> BoxedWrite {
    move |chunks| {
        Box::pin(async move {
            let mut sent = 0;
            while let Some(piece) = next_output(&world, &id, sent, follow).await {
                sent += piece.len();
                send(&chunks, piece).await?;
            }
            Some(())
        })
    }
}

/// The output behind `from`; `None` at its end. One that follows waits for the container's end.
async fn next_output(world: &World, id: &str, from: usize, follow: bool) -> Option<Vec<u8>> {
    world
        .until(|state| {
            let container = state.containers.get(id)?;
            let rest = &container.log[from..];
            if !rest.is_empty() && !state.frozen {
                return Some(Some(rest.to_vec()));
            }
            let may_grow = follow && container.may_still_write();
            (!may_grow && !state.frozen).then_some(None)
        })
        .await
}

/// Counts a pull as under way until it is dropped.
struct UnderWay {
    world: Arc<World>,
    image: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.world.change(|state| state.end_pull(&self.image));
    }
}

pub(super) fn pull(world: Arc<World>, image: String) -> impl FnOnce(Chunks) -> BoxedWrite {
    world.change(|state| state.begin_pull(&image));
    let under_way = UnderWay { world: Arc::clone(&world), image: image.clone() };
    move |chunks| {
        Box::pin(async move {
            let _under_way = under_way;
            let told = chunks.clone();
            tokio::select! {
                done = pull_to_end(&world, &image, &chunks) => done,
                () = told.closed() => None,
            }
        })
    }
}

async fn pull_to_end(world: &World, image: &str, chunks: &Chunks) -> Option<()> {
    let line = |value: Value| format!("{value}\r\n");
    let layer = |status: &str, current: u64| {
        let detail = json!({"current": current, "total": 1 << 20});
        line(json!({"id": "layer", "status": status, "progressDetail": detail}))
    };
    let mut sent = 0;
    loop {
        let pull = world.look(|state| state.pulls.get(image).cloned());
        match pull {
            None => {
                let words = format!(
                    "pull access denied for {image}, repository does not exist or may require \
                     'docker login'"
                );
                return fail(chunks, &words).await;
            }
            Some(Pull::Fails(words)) => return fail(chunks, &words).await,
            Some(Pull::Works) => {
                world.until(|state| (!state.frozen).then_some(())).await;
                send(chunks, layer("Pull complete", 0)).await?;
                world.change(|state| state.images.insert(image.to_owned()));
                return Some(());
            }
            Some(Pull::Trickles) => {
                sent += 1;
                send(chunks, layer("Downloading", sent)).await?;
                tokio::time::sleep(TRICKLE_PAUSE).await;
            }
            Some(Pull::Hangs) => {
                send(chunks, layer("Downloading", 0)).await?;
                let is_else = |state: &State| state.pulls.get(image) != Some(&Pull::Hangs);
                world.until(|state| is_else(state).then_some(())).await;
            }
        }
    }
}

async fn fail(chunks: &Chunks, words: &str) -> Option<()> {
    let error = json!({"errorDetail": {"message": words}, "error": words});
    send(chunks, format!("{error}\r\n")).await
}

/// Hands the connection over to the container's output.
pub(super) fn attach(
    world: &Arc<World>,
    id: &str,
    is_cut: bool,
    upgrade: hyper::upgrade::OnUpgrade,
    gone: &CancellationToken,
) -> Response<Body> {
    let (world, id, gone) = (Arc::clone(world), id.to_owned(), gone.clone());
    let copy = async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut sent = 0;
        while let Some(piece) = next_output(&world, &id, sent, true).await {
            sent += piece.len();
            // In the middle of a frame, or of its header.
            let bytes = if is_cut { &piece[..piece.len() / 2] } else { &piece };
            if stream.write_all(bytes).await.is_err() || is_cut {
                return;
            }
        }
        let _ = stream.shutdown().await;
    };
    tokio::spawn(async move {
        gone.run_until_cancelled(copy).await;
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, "tcp".parse().expect("it is ASCII"));
    headers.insert(CONNECTION, "Upgrade".parse().expect("it is ASCII"));
    response
}
