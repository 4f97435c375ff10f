//! Waiting for a container's end, and bringing it about: the stop that somebody asks for, the
//! time-out, SIGTERM, grace, SIGKILL. It must never say that a container ended before the engine
//! said so, however long the engine is away: its capacity is taken until it is really gone. Read
//! next: `life.rs`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder, Retryable};
use bollard::Docker;
use bollard::errors::Error as BollardError;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{KillContainerOptionsBuilder, WaitContainerOptionsBuilder};
use cloudai_failpoint::failpoint;
use cloudai_model::{Cause, Limits, Timestamp};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::engine::{CallError, KILL_DEADLINE, READ_DEADLINE, call, finished_at};
use crate::clock;
use crate::executor::{AttemptRecord, BegunStop, StopRequest};

/// How often a SIGKILL is repeated to a container that stays.
const KILL_INTERVAL: Duration = Duration::from_secs(10);
/// The pauses between the calls to an engine that is away: 0.1 s, doubled up to 5 s, without end.
const ENGINE_PAUSE_MIN: Duration = Duration::from_millis(100);
const ENGINE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a container is looked at beside a wait that says nothing: the answer may be lost with
/// a connection that nobody closed.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
/// How long a stop waits for the record that it begins.
const RECORD_DEADLINE: Duration = Duration::from_secs(1);
/// How often a signal that the engine refused is sent again at once.
const SIGNAL_RETRIES_MAX: usize = 3;

/// The wish to end an attempt, from either side: a request, or the future that was dropped.
#[derive(Debug)]
pub(super) struct Stop {
    requests: watch::Receiver<Option<StopRequest>>,
    abandoned: CancellationToken,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finish {
    /// The container ended before anybody stopped it.
    ByItself,
    /// It was stopped on request.
    Stopped(StopRequest),
    /// It was stopped at its time-out.
    TimedOut {
        /// The time-out.
        timeout_ms: u64,
    },
    /// It was found ended after the engine had been away.
    EngineFailed,
    /// The engine told its end, and was gone a moment later: it was being shut down.
    AsEngineLeft,
    /// It was stopped through the engine, and not by this worker.
    StoppedOutside,
    /// The container does not exist any more.
    Gone,
}

/// The end of a wait.
#[derive(Debug)]
pub(super) struct Waited {
    pub(super) finish: Finish,
    /// Whether a connection to the engine broke on the way; others may have, too.
    pub(super) was_away: bool,
    /// What the engine said of the container when it did not run any more; `None` when there is no
    /// such container.
    pub(super) inspected: Option<Box<ContainerInspectResponse>>,
}

impl Stop {
    pub(super) fn new(
        requests: watch::Receiver<Option<StopRequest>>,
        abandoned: CancellationToken,
    ) -> Self {
        Self { requests, abandoned }
    }

    /// Whether nobody waits for the attempt any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }

    /// The request that has already been made.
    pub(super) fn find_request(&self) -> Option<StopRequest> {
        if self.is_abandoned() {
            return Some(StopRequest { cause: Cause::WorkerLost, grace_ms: 0 });
        }
        *self.requests.borrow()
    }

    /// Resolves once a stop is requested; never, when nobody can request one any more.
    pub(super) async fn requested(&mut self) -> StopRequest {
        self.requested_below(None).await
    }

    /// The same, for a stop with less time than one that has begun.
    async fn requested_below(&mut self, given_ms: Option<u64>) -> StopRequest {
        let is_less = |request: &Option<StopRequest>| {
            request.is_some_and(|request| given_ms.is_none_or(|given| request.grace_ms < given))
        };
        let requested = async {
            if self.requests.wait_for(is_less).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = requested => {}
            () = self.abandoned.cancelled(), if given_ms != Some(0) => {}
        }
        self.find_request().unwrap_or(StopRequest { cause: Cause::WorkerLost, grace_ms: 0 })
    }
}

/// Waits for one started container.
pub(super) struct Waiter<'a> {
    docker: &'a Docker,
    id: &'a str,
    limits: Limits,
    record: &'a AttemptRecord,
    /// How long the container has run already.
    ran: Duration,
    begun: Option<BegunStop>,
    stop: &'a mut Stop,
}

/// How far the stopping of a container is.
enum Stopping {
    /// Nobody asked for it.
    Not,
    /// Somebody did, but the container had ended before. If that was wrong, it is told again.
    TooLate { again_at: Instant, finish: Finish, grace_ms: u64 },
    /// It got SIGTERM, or nothing but SIGKILL.
    Until { kill_at: Instant, finish: Finish, grace_ms: u64 },
}

impl<'a> Waiter<'a> {
    pub(super) fn new(
        docker: &'a Docker,
        id: &'a str,
        limits: Limits,
        record: &'a AttemptRecord,
        stop: &'a mut Stop,
    ) -> Self {
        Self { docker, id, limits, record, ran: Duration::ZERO, begun: None, stop }
    }

    /// The container has run for so long already: its time-out comes so much earlier.
    pub(super) fn that_ran(mut self, ran: Duration) -> Self {
        self.ran = ran;
        self
    }

    /// An earlier process has begun to stop it.
    pub(super) fn that_was_stopped(mut self, begun: Option<BegunStop>) -> Self {
        self.begun = begun;
        self
    }

    pub(super) async fn wait(self) -> Waited {
        let Self { docker, id, limits, record, ran, begun, stop } = self;
        let timeout_at = time_left(limits, ran).and_then(|left| Instant::now().checked_add(left));
        let mut exit = std::pin::pin!(until_exit(docker, id));
        let begun_at = begun.as_ref().map(|begun| begun.begun_at);
        let mut stopping = begun.map_or(Stopping::Not, |begun| Stopping::resume(begun, limits));
        loop {
            let is_free = matches!(stopping, Stopping::Not);
            let (next_at, given_ms) = match &stopping {
                Stopping::Until { kill_at, grace_ms, .. } => (Some(*kill_at), Some(*grace_ms)),
                Stopping::TooLate { again_at, .. } => (Some(*again_at), None),
                Stopping::Not => (None, None),
            };
            let (finish, grace_ms) = tokio::select! {
                biased;
                exited = &mut exit => {
                    // The process that began to stop it was killed before it saw the end.
                    if begun_at.is_some_and(|at| exited.is_before(at)) {
                        return exited;
                    }
                    return Waited { finish: stopping.finish(exited.finish), ..exited };
                }
                request = stop.requested_below(given_ms), if is_free || given_ms.is_some() => {
                    if !is_free {
                        stopping.hurry(request.grace_ms);
                        continue;
                    }
                    (Finish::Stopped(request), request.grace_ms)
                }
                () = at(timeout_at), if is_free => {
                    let timeout_ms = limits.timeout_ms.unwrap_or_default();
                    (Finish::TimedOut { timeout_ms }, limits.grace_ms)
                }
                () = at(next_at), if next_at.is_some() => {
                    stopping = stopping.go_on(docker, id).await;
                    continue;
                }
            };
            keep(record, id, &finish, grace_ms).await;
            stopping = begin(docker, id, finish, grace_ms).await;
        }
    }
}

/// Records that the container is about to be stopped: after a restart, nobody could tell the end
/// that comes of it from the task's own. A disk that refuses must not hold up the stop.
async fn keep(record: &AttemptRecord, id: &str, finish: &Finish, grace_ms: u64) {
    let cause = match finish {
        Finish::Stopped(request) => request.cause,
        _ => Cause::Timeout,
    };
    let begun_at = clock::wall();
    let kill_at = Timestamp(begun_at.0.saturating_add(grace_ms));
    let stop = BegunStop { cause, begun_at, kill_at };
    let why = match tokio::time::timeout(RECORD_DEADLINE, record.stopping(stop)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the disk takes longer than {} s", RECORD_DEADLINE.as_secs()),
    };
    tracing::warn!("Cannot record that container {id} is stopped: {why}");
}

/// SIGTERM, unless there is no grace at all.
async fn begin(docker: &Docker, id: &str, finish: Finish, grace_ms: u64) -> Stopping {
    let signal = if grace_ms == 0 { "SIGKILL" } else { "SIGTERM" };
    let again = pauses().with_max_times(SIGNAL_RETRIES_MAX);
    // One without an answer may have been delivered; a second SIGTERM means something else.
    let is_undelivered = |error: &CallError| error.status().is_some() && !is_ended(error);
    let sent = (|| kill(docker, id, signal)).retry(again).when(is_undelivered).await;
    match sent {
        // A paused container, too, gets a 409.
        Err(error) if is_ended(&error) && !may_run(docker, id).await => {
            return Stopping::TooLate {
                again_at: Instant::now() + KILL_INTERVAL,
                finish,
                grace_ms,
            };
        }
        // The kill after the grace finds out.
        Err(error) => tracing::warn!("Container {id} did not get {signal}: {error}"),
        Ok(()) => failpoint!("worker.stop.signalled"),
    }
    let wait = if grace_ms == 0 { KILL_INTERVAL } else { Duration::from_millis(grace_ms) };
    Stopping::Until { kill_at: Instant::now() + wait, finish, grace_ms }
}

/// Whether the engine does not say that the container has ended.
async fn may_run(docker: &Docker, id: &str) -> bool {
    match call("inspect a container", READ_DEADLINE, docker.inspect_container(id, None)).await {
        Ok(inspected) => is_running(&inspected),
        Err(error) => !error.is_not_found(),
    }
}

fn is_running(inspected: &ContainerInspectResponse) -> bool {
    inspected.state.as_ref().and_then(|state| state.running) == Some(true)
}

impl Stopping {
    /// A stop that an earlier process began. It gets no second SIGTERM, which to many a task means
    /// something else than the first; one that got none has its grace all the same.
    fn resume(begun: BegunStop, limits: Limits) -> Self {
        let grace_ms = begun.kill_at.ms_since(clock::wall()).min(limits.grace_ms);
        let finish = match begun.cause {
            Cause::Timeout => {
                Finish::TimedOut { timeout_ms: limits.timeout_ms.unwrap_or_default() }
            }
            cause => Finish::Stopped(StopRequest { cause, grace_ms }),
        };
        let kill_at = Instant::now() + Duration::from_millis(grace_ms);
        Self::Until { kill_at, finish, grace_ms }
    }

    /// Somebody has no time for the grace that was given.
    fn hurry(&mut self, less_ms: u64) {
        if let Self::Until { kill_at, grace_ms, .. } = self {
            *kill_at = (*kill_at).min(Instant::now() + Duration::from_millis(less_ms));
            *grace_ms = less_ms;
        }
    }

    /// Its time has come: SIGKILL, and again while the container stays.
    async fn go_on(self, docker: &Docker, id: &str) -> Self {
        match self {
            Self::Not => Self::Not,
            Self::TooLate { finish, grace_ms, .. } => begin(docker, id, finish, grace_ms).await,
            Self::Until { finish, grace_ms, .. } => {
                if let Err(error) = kill(docker, id, "SIGKILL").await
                    && !is_ended(&error)
                {
                    tracing::warn!("Container {id} did not get SIGKILL: {error}");
                }
                Self::Until { kill_at: Instant::now() + KILL_INTERVAL, finish, grace_ms }
            }
        }
    }

    /// What the end means after this much stopping.
    fn finish(self, exited: Finish) -> Finish {
        match self {
            Self::Until { finish, .. } => finish,
            Self::Not | Self::TooLate { .. } => exited,
        }
    }
}

/// What is left of the time-out of a container that ran for so long.
fn time_left(limits: Limits, ran: Duration) -> Option<Duration> {
    limits.timeout_ms.map(|timeout_ms| Duration::from_millis(timeout_ms).saturating_sub(ran))
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn kill(docker: &Docker, id: &str, signal: &str) -> Result<(), CallError> {
    let options = KillContainerOptionsBuilder::default().signal(signal).build();
    call("signal a container", KILL_DEADLINE, docker.kill_container(id, Some(options))).await
}

/// Whether a signal may have come too late: 409 is "is not running", 404 "no such container".
fn is_ended(error: &CallError) -> bool {
    matches!(error.status(), Some(404 | 409))
}

impl Waited {
    /// Whether the engine says that the end came before.
    fn is_before(&self, at: Timestamp) -> bool {
        let state = self.inspected.as_ref().and_then(|inspected| inspected.state.as_ref());
        state.and_then(finished_at).is_some_and(|ended_at| ended_at < at)
    }
}

/// Resolves when the container does not run any more. It was started, so the condition
/// `not-running` cannot be met before it ran, and is met at once when it ended. A container that
/// somebody started again after its end goes on.
async fn until_exit(docker: &Docker, id: &str) -> Waited {
    let mut was_away = false;
    let mut again = pauses().build();
    loop {
        let began = Instant::now();
        let waited = wait_once(docker, id).await;
        if let Err(why) = &waited {
            tracing::debug!("Looking at container {id}: {why}");
            was_away = true;
        }
        let (inspected, is_back) = inspect(docker, id).await;
        was_away |= is_back;
        let finish = match &inspected {
            None => Some(Finish::Gone),
            Some(inspected) if is_running(inspected) => None,
            // An engine that answers at once was not restarted; only a connection broke.
            Some(_) if !is_back => Some(Finish::ByItself),
            Some(_) if waited.is_ok() => Some(Finish::AsEngineLeft),
            Some(_) => Some(Finish::EngineFailed),
        };
        if let Some(finish) = finish {
            return Waited { finish, was_away, inspected: inspected.map(Box::new) };
        }
        // An engine that kept it running did not end it.
        if began.elapsed() > ENGINE_PAUSE_MAX {
            again = pauses().build();
        }
        pause(&mut again).await;
    }
}

/// One wait, for as long as its connection lasts.
async fn wait_once(docker: &Docker, id: &str) -> Result<(), String> {
    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut answers = std::pin::pin!(docker.wait_container(id, Some(options)));
    loop {
        match tokio::time::timeout(LOOK_INTERVAL, answers.next()).await {
            Ok(Some(Ok(_) | Err(BollardError::DockerContainerWaitError { .. }))) => return Ok(()),
            Ok(Some(Err(error))) => {
                return Err(CallError::new("wait for a container", &error).to_string());
            }
            Ok(None) => return Err("the engine ended a wait without an answer".to_owned()),
            Err(_) if !may_run(docker, id).await => return Ok(()),
            Err(_) => {}
        }
    }
}

/// What the engine knows of a container, asked until it answers; `None` when there is no such
/// container, which is asked twice. The other is whether the engine was away.
pub(super) async fn inspect(docker: &Docker, id: &str) -> (Option<ContainerInspectResponse>, bool) {
    let mut again = pauses().build();
    let (mut was_away, mut was_missing) = (false, false);
    loop {
        match call("inspect a container", READ_DEADLINE, docker.inspect_container(id, None)).await {
            Ok(inspected) => return (Some(inspected), was_away),
            Err(error) if error.is_not_found() && was_missing => return (None, was_away),
            Err(error) => {
                was_missing = error.is_not_found();
                tracing::debug!("Container {id} is asked for again: {error}");
                was_away |= error.status().is_none();
            }
        }
        pause(&mut again).await;
    }
}

pub(super) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(ENGINE_PAUSE_MIN)
        .with_max_delay(ENGINE_PAUSE_MAX)
        .without_max_times()
        .with_jitter()
}

async fn pause(again: &mut ExponentialBackoff) {
    tokio::time::sleep(again.next().unwrap_or(ENGINE_PAUSE_MAX)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_came_first_is_seen_at_once() {
        let request = StopRequest { cause: Cause::Cancelled, grace_ms: 5 };
        let (sender, receiver) = watch::channel(Some(request));
        let mut stop = Stop::new(receiver, CancellationToken::new());
        assert_eq!(stop.find_request(), Some(request));
        drop(sender);
        assert_eq!(stop.requested().await, request);
    }

    #[tokio::test]
    async fn only_a_request_with_less_time_hurries_a_stop() {
        let request = StopRequest { cause: Cause::Cancelled, grace_ms: 5 };
        let (sender, receiver) = watch::channel(Some(request));
        let mut stop = Stop::new(receiver, CancellationToken::new());
        assert_eq!(stop.requested_below(Some(6)).await, request);
        let mut hurried = std::pin::pin!(stop.requested_below(Some(5)));
        assert!(futures_util::poll!(&mut hurried).is_pending());
        sender.send_replace(Some(StopRequest { grace_ms: 4, ..request }));
        assert_eq!(hurried.await.grace_ms, 4);
    }

    #[test]
    fn a_time_out_counts_what_the_container_ran_already() {
        let limits = |timeout_ms| Limits { timeout_ms, ..Limits::default() };
        let left = |ran_s| time_left(limits(Some(3_000)), Duration::from_secs(ran_s));
        assert_eq!(left(0), Some(Duration::from_secs(3)));
        assert_eq!(left(2), Some(Duration::from_secs(1)));
        assert_eq!(left(4), Some(Duration::ZERO));
        assert_eq!(time_left(limits(None), Duration::from_secs(4)), None);
    }

    #[tokio::test]
    async fn a_dropped_future_stops_without_grace() {
        let (sender, receiver) = watch::channel(None);
        let abandoned = CancellationToken::new();
        let mut stop = Stop::new(receiver, abandoned.clone());
        assert_eq!(stop.find_request(), None);
        drop(sender);
        drop(abandoned.drop_guard());
        assert_eq!(stop.requested().await.cause, Cause::WorkerLost);
        assert!(stop.is_abandoned());
    }

    #[test]
    fn a_stop_that_came_too_late_leaves_the_containers_own_end() {
        let request = StopRequest { cause: Cause::Cancelled, grace_ms: 0 };
        let finish = Finish::Stopped(request);
        let kill_at = Instant::now();
        let until = || Stopping::Until { kill_at, finish: finish.clone(), grace_ms: 1 };
        let too_late = Stopping::TooLate { again_at: kill_at, finish: finish.clone(), grace_ms: 1 };
        assert_eq!(too_late.finish(Finish::ByItself), Finish::ByItself);
        assert_eq!(until().finish(Finish::ByItself), finish);
        assert_eq!(until().finish(Finish::Gone), finish);
    }
}
