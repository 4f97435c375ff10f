//! Waiting for a container's end, and bringing it about: the stop that somebody asks for, the
//! time-out, SIGTERM, grace, SIGKILL. It must never say that a container ended while the engine
//! says that it runs: its capacity is taken until it is really gone. Read next: `life.rs`.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bollard::Docker;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::{KillContainerOptionsBuilder, WaitContainerOptionsBuilder};
use cloudai_model::{Cause, Limits};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::engine::{CallError, KILL_DEADLINE, READ_DEADLINE, call};
use crate::executor::StopRequest;

/// How often a SIGKILL is repeated to a container that stays.
const KILL_INTERVAL: Duration = Duration::from_secs(10);
/// How long an engine may be away before its containers are given up: 0.1 s doubled up to 5 s.
const ENGINE_RETRIES_MAX: usize = 20;
const ENGINE_PAUSE_MIN: Duration = Duration::from_millis(100);
const ENGINE_PAUSE_MAX: Duration = Duration::from_secs(5);

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
    /// The container does not exist any more.
    Gone,
    /// The engine stayed away; whether the container runs is unknown.
    EngineLost(String),
}

/// The end of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waited {
    pub(super) finish: Finish,
    /// Whether a connection to the engine broke on the way; others may have, too.
    pub(super) was_away: bool,
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
        let requested = async {
            if self.requests.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = requested => {}
            () = self.abandoned.cancelled() => {}
        }
        self.find_request().unwrap_or(StopRequest { cause: Cause::WorkerLost, grace_ms: 0 })
    }
}

/// Waits for one started container.
pub(super) struct Waiter<'a> {
    docker: &'a Docker,
    id: &'a str,
    limits: Limits,
    stop: &'a mut Stop,
}

/// How far the stopping of a container is.
enum Stopping {
    /// Nobody asked for it.
    Not,
    /// Somebody did, but the container had ended before.
    TooLate,
    /// It got SIGTERM, or nothing but SIGKILL.
    Until { kill_at: Instant, finish: Finish, hurried: bool },
}

impl<'a> Waiter<'a> {
    pub(super) fn new(docker: &'a Docker, id: &'a str, limits: Limits, stop: &'a mut Stop) -> Self {
        Self { docker, id, limits, stop }
    }

    pub(super) async fn wait(self) -> Waited {
        let Self { docker, id, limits, stop } = self;
        let timeout = limits.timeout_ms.map(Duration::from_millis);
        let timeout_at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut exit = std::pin::pin!(until_exit(docker, id));
        let mut stopping = Stopping::Not;
        loop {
            let is_free = matches!(stopping, Stopping::Not);
            let kill_at = match &stopping {
                Stopping::Until { kill_at, .. } => Some(*kill_at),
                Stopping::Not | Stopping::TooLate => None,
            };
            let (finish, grace_ms) = tokio::select! {
                biased;
                (exited, was_away) = &mut exit => {
                    return Waited { finish: stopping.finish(exited), was_away };
                }
                request = stop.requested(), if is_free || stopping.may_be_hurried() => {
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
                () = at(kill_at), if kill_at.is_some() => {
                    stopping.kill(docker, id).await;
                    continue;
                }
            };
            stopping = begin(docker, id, finish, grace_ms).await;
        }
    }
}

/// SIGTERM, unless there is no grace at all.
async fn begin(docker: &Docker, id: &str, finish: Finish, grace_ms: u64) -> Stopping {
    let signal = if grace_ms == 0 { "SIGKILL" } else { "SIGTERM" };
    match kill(docker, id, signal).await {
        Err(error) if is_ended(&error) => return Stopping::TooLate,
        // The kill after the grace finds out.
        Err(error) => tracing::warn!("Container {id} did not get {signal}: {error}"),
        Ok(()) => {}
    }
    let wait = if grace_ms == 0 { KILL_INTERVAL } else { Duration::from_millis(grace_ms) };
    Stopping::Until { kill_at: Instant::now() + wait, finish, hurried: false }
}

impl Stopping {
    /// Whether a request to stop still matters: it may be one that has no time for the grace which
    /// a time-out gave.
    const fn may_be_hurried(&self) -> bool {
        matches!(self, Self::Until { finish: Finish::TimedOut { .. }, hurried: false, .. })
    }

    fn hurry(&mut self, grace_ms: u64) {
        if let Self::Until { kill_at, hurried, .. } = self {
            *kill_at = (*kill_at).min(Instant::now() + Duration::from_millis(grace_ms));
            *hurried = true;
        }
    }

    async fn kill(&mut self, docker: &Docker, id: &str) {
        if let Err(error) = kill(docker, id, "SIGKILL").await
            && !is_ended(&error)
        {
            tracing::warn!("Container {id} did not get SIGKILL: {error}");
        }
        if let Self::Until { kill_at, .. } = self {
            *kill_at = Instant::now() + KILL_INTERVAL;
        }
    }

    /// What the end means after this much stopping.
    fn finish(self, exited: Finish) -> Finish {
        match (self, exited) {
            (_, Finish::EngineLost(words)) => Finish::EngineLost(words),
            (Self::Until { finish, .. }, _) => finish,
            (Self::Not | Self::TooLate, exited) => exited,
        }
    }
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

/// Whether a signal came too late: 409 is "is not running", 404 "no such container".
fn is_ended(error: &CallError) -> bool {
    matches!(error.status(), Some(404 | 409))
}

/// Resolves when the container has ended, or cannot be waited for, and says whether the engine was
/// away meanwhile. The container was started, so the condition `not-running` cannot be met before
/// it ran, and is met at once when it ended.
async fn until_exit(docker: &Docker, id: &str) -> (Finish, bool) {
    let mut was_away = false;
    loop {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut answers = std::pin::pin!(docker.wait_container(id, Some(options)));
        let why = match answers.next().await {
            Some(Ok(_) | Err(BollardError::DockerContainerWaitError { .. })) => {
                return (Finish::ByItself, was_away);
            }
            Some(Err(error)) => CallError::new("wait for a container", &error).to_string(),
            None => "the engine ended a wait without an answer".to_owned(),
        };
        tracing::debug!("Looking at container {id}: {why}");
        was_away = true;
        let finish = match look(docker, id).await {
            // An engine that kept it running did not end it.
            Look::Running => continue,
            Look::Ended { after_outage: true } => Finish::EngineFailed,
            Look::Ended { after_outage: false } => Finish::ByItself,
            Look::Gone => Finish::Gone,
            Look::Lost(why) => Finish::EngineLost(why),
        };
        return (finish, was_away);
    }
}

enum Look {
    Running,
    /// An engine that answers at once was not restarted; only a connection broke.
    Ended {
        after_outage: bool,
    },
    Gone,
    Lost(String),
}

/// Asks until the engine answers, for about a minute and a half.
async fn look(docker: &Docker, id: &str) -> Look {
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(ENGINE_PAUSE_MIN)
        .with_max_delay(ENGINE_PAUSE_MAX)
        .with_max_times(ENGINE_RETRIES_MAX)
        .with_jitter()
        .build();
    let mut after_outage = false;
    loop {
        let inspected = docker.inspect_container(id, None);
        match call("inspect a container", READ_DEADLINE, inspected).await {
            Ok(inspected) => {
                let running = inspected.state.and_then(|state| state.running);
                let is_running = running == Some(true);
                return if is_running { Look::Running } else { Look::Ended { after_outage } };
            }
            Err(error) if error.is_not_found() => return Look::Gone,
            Err(error) => {
                let Some(pause) = pauses.next() else {
                    let words = format!("the engine stayed away while the task ran: {error}");
                    return Look::Lost(words);
                };
                tokio::time::sleep(pause).await;
            }
        }
        after_outage = true;
    }
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
        let until = || Stopping::Until { kill_at, finish: finish.clone(), hurried: false };
        assert_eq!(Stopping::TooLate.finish(Finish::ByItself), Finish::ByItself);
        assert_eq!(until().finish(Finish::ByItself), finish);
        assert_eq!(until().finish(Finish::Gone), finish);
        let lost = Finish::EngineLost("x".into());
        assert_eq!(until().finish(lost.clone()), lost);
    }
}
