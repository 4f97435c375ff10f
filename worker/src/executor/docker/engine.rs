//! One call to the engine: a deadline around it, and its failure in words. Every call of this
//! executor except `wait` and `attach`, which last as long as their container, goes through
//! [`call`]. It must never retry: that is decided where the call is made. Read next: `life.rs`.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::ContainerState;
use cloudai_model::Timestamp;
use thiserror::Error;

/// How long the engine may take for what it answers from memory.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to create a container, or to attach to one.
pub(super) const CREATE_DEADLINE: Duration = Duration::from_mins(2);
/// How long it may take to start one; far more than any engine under load was seen to take.
pub(super) const START_DEADLINE: Duration = Duration::from_mins(3);
/// How long it may take to deliver a signal.
pub(super) const KILL_DEADLINE: Duration = Duration::from_mins(1);
/// How long it may take to remove a container and its volume.
pub(super) const REMOVE_DEADLINE: Duration = Duration::from_mins(2);

/// Why a call to the engine has no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum CallError {
    /// The engine answered, and the answer is no.
    #[error("the engine cannot {what}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The HTTP status; 500 when the refusal came in the middle of an answer.
        status: u16,
        /// The engine's own words, or those of the registry that it passes on.
        message: String,
    },
    /// The engine did not answer in time; whether it did what was asked is unknown.
    #[error("the engine did not {what} within {seconds} s")]
    Late {
        /// What was asked.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The connection failed; whether the engine did what was asked is unknown.
    #[error("no answer from the engine when asked to {what}: {why}")]
    Lost {
        /// What was asked.
        what: &'static str,
        /// The error below, with its sources.
        why: String,
    },
}

impl CallError {
    /// What a failure of bollard means.
    pub(super) fn new(what: &'static str, error: &BollardError) -> Self {
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                Self::Refused { what, status: *status_code, message: message.trim().to_owned() }
            }
            BollardError::DockerStreamError { error } => {
                Self::Refused { what, status: 500, message: error.trim().to_owned() }
            }
            other => Self::Lost { what, why: chain(other) },
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Late { .. } | Self::Lost { .. } => None,
        }
    }

    /// Whether the engine says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }
}

/// Runs one call with its deadline. `what` completes "the engine cannot …".
pub(super) async fn call<T>(
    what: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CallError::new(what, &error)),
        Err(_) => Err(CallError::Late { what, seconds: deadline.as_secs() }),
    }
}

/// The engine's record of the end.
pub(super) fn finished_at(state: &ContainerState) -> Option<Timestamp> {
    time(state.finished_at.as_deref())
}

/// A time of the engine's; its zero time means that there is none.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    let at = text?.parse::<jiff::Timestamp>().ok()?;
    u64::try_from(at.as_millisecond()).ok().filter(|ms| *ms > 0).map(Timestamp)
}

/// An error with its sources, each said once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}

/// The kind of the first IO error in the chain.
pub(super) fn find_io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_answers_ends_at_its_deadline() {
        let never = std::future::pending::<Result<(), BollardError>>();
        let error = call("inspect a container", READ_DEADLINE, never).await.unwrap_err();
        assert_eq!(error.to_string(), "the engine did not inspect a container within 20 s");
        assert_eq!(error.status(), None);
    }

    #[test]
    fn a_refusal_keeps_the_engines_words_and_status() {
        let message = "No such image: x:latest\n".to_owned();
        let error = BollardError::DockerResponseServerError { status_code: 404, message };
        let error = CallError::new("create a container", &error);
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "the engine cannot create a container: No such image: x:latest"
        );
    }
}
