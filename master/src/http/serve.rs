//! Connections: accepted, bounded, and closed in good order.
//!
//! When every place is taken, the connection that has been idle for longest makes room for the
//! new one, so that ten thousand clients that only connect cannot keep out one that asks. When
//! all of them are at work, the new one is told to come back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use cloudai_api::{ErrorBody, ErrorCode};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Most connections at once: with the files behind them, far below the 1,024 file descriptors
/// that a process commonly has.
const CONNECTIONS_MAX: usize = 512;

/// How long a request's head may take to arrive, and a kept connection may say nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers may take to end when the master stops.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Pause after a failed accept: without a free file descriptor it fails again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` until `shutdown` is cancelled, then lets answers end for a short while.
pub(crate) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_bounded(listener, router, shutdown, CONNECTIONS_MAX).await;
}

/// As [`serve`], with a bound of the caller's.
pub(super) async fn serve_bounded(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    connections_max: usize,
) {
    let table = Arc::new(Table::new(connections_max));
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => match table.admit() {
                Some(place) => {
                    tracker.spawn(speak(stream, router.clone(), place, shutdown.clone()));
                }
                None => turn_away(&stream, connections_max),
            },
            Err(error) => {
                tracing::warn!("cannot accept an HTTP connection: {error}");
                table.close_idlest();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tracker.close();
    if tokio::time::timeout(STOP_GRACE, tracker.wait()).await.is_err() {
        table.close_all();
        tracker.wait().await;
    }
}

/// Serves one connection.
async fn speak(stream: TcpStream, router: Router, place: Place, shutdown: CancellationToken) {
    // Answers are small and somebody waits for each.
    drop(stream.set_nodelay(true));
    let seat = Arc::clone(&place.seat);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let work = Work::begin(&seat);
        let router = router.clone();
        async move {
            let answer = router.oneshot(request.map(Body::new)).await?;
            let (head, body) = answer.into_parts();
            Ok::<_, Infallible>(Response::from_parts(head, WorkBody { body, _work: work }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // A client that breaks off is no event.
        _ = connection.as_mut() => return,
        () = place.seat.close.cancelled() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = place.seat.close.cancelled() => {}
    }
}

/// Tells a client that there is no place, as far as its socket takes it without waiting.
fn turn_away(stream: &TcpStream, connections_max: usize) {
    let words = format!("{connections_max} connections are at work, as many as may");
    let body = ErrorBody::new(ErrorCode::Busy, words).with_hint("try again in a moment");
    let body = serde_json::to_string(&body).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    drop(stream.try_write(answer.as_bytes()));
}

/// Every open connection.
#[derive(Debug)]
struct Table {
    connections_max: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    last: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

/// One connection as the others see it.
#[derive(Debug)]
struct Seat {
    close: CancellationToken,
    pace: Mutex<Pace>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Requests whose answers have not ended.
    at_work: u32,
    idle_since: Instant,
}

impl Table {
    fn new(connections_max: usize) -> Self {
        Self { connections_max, seats: Mutex::default() }
    }

    /// A place for a new connection; `None` when every one is at work.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut seats = self.lock();
        if seats.taken.len() >= self.connections_max && !seats.close_idlest() {
            return None;
        }
        seats.last += 1;
        let number = seats.last;
        let pace = Mutex::new(Pace { at_work: 0, idle_since: Instant::now() });
        let seat = Arc::new(Seat { close: CancellationToken::new(), pace });
        seats.taken.insert(number, Arc::clone(&seat));
        Some(Place { table: Arc::clone(self), number, seat })
    }

    fn close_idlest(&self) {
        self.lock().close_idlest();
    }

    fn close_all(&self) {
        self.lock().taken.values().for_each(|seat| seat.close.cancel());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Ends the connection that has been idle for longest; false when none is idle.
    fn close_idlest(&mut self) -> bool {
        let idle = self.taken.iter().filter_map(|(number, seat)| {
            let pace = seat.pace();
            (pace.at_work == 0).then_some((pace.idle_since, *number))
        });
        let Some((_, number)) = idle.min() else { return false };
        if let Some(seat) = self.taken.remove(&number) {
            seat.close.cancel();
        }
        true
    }
}

impl Seat {
    fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Pace)) {
        change(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A connection's entry; leaves the table when dropped.
struct Place {
    table: Arc<Table>,
    number: u64,
    seat: Arc<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().taken.remove(&self.number);
    }
}

/// A request from its head to the last byte of its answer.
struct Work(Arc<Seat>);

impl Work {
    fn begin(seat: &Arc<Seat>) -> Self {
        seat.change(|pace| pace.at_work += 1);
        Self(Arc::clone(seat))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.change(|pace| {
            pace.at_work -= 1;
            pace.idle_since = Instant::now();
        });
    }
}

/// An answer's body, which is work until it has ended.
struct WorkBody {
    body: Body,
    _work: Work,
}

impl HttpBody for WorkBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
