//! Who ended a container: the task itself, or somebody through the engine. An engine that is shut
//! down stops its containers before it goes away, and tells whoever waits for them an exit code
//! that looks like the task's own. Its list of events knows better: a stop is in it in front of the
//! end. An engine that was started anew has an empty list. It must never take an end from the task
//! on less than that. Read next: `collect.rs`, which makes an outcome of it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerState, EventMessage};
use bollard::query_parameters::EventsOptionsBuilder;
use cloudai_model::Timestamp;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::super::engine::{CallError, READ_DEADLINE, finished_at, time};
use super::super::wait::{Finish, inspect};

/// The signals that stop a container: INT, QUIT, KILL, TERM. With another, somebody may have told
/// the task something.
const STOP_SIGNALS: [&str; 4] = ["2", "3", "9", "15"];
/// What a shell gives for a process that SIGKILL or SIGTERM ended.
const STOPPED_CODES: [i64; 2] = [137, 143];
/// How long after its end, in milliseconds, a container's end may come into the list: the engine
/// writes it a moment later.
const LISTED_WITHIN_MS: u64 = 5_000;
/// How long the end of a success is looked for in the list, which may have lost it: an engine keeps
/// the last 256 events only.
const SUCCESS_PATIENCE: Duration = Duration::from_millis(200);
/// How often the list is asked for when its answer is lost.
const ASKS_MAX: usize = 3;

/// What the list of events says of a container's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    /// It ended, and nothing stopped it before.
    End,
    /// It was stopped.
    Stop,
    /// Nothing: the engine was started later, or its list is full of other things.
    Nothing,
}

/// The finish of a wait, by what the engine says of the end. What CloudAI stopped itself needs no
/// further word. The flag is whether the engine was away.
///
/// A success is doubted as well: a task that has a handler for SIGTERM, and ends well in it, was
/// interrupted all the same. It stays one when the engine does not know, unless the engine goes
/// away at that very moment: then it is being shut down.
pub(super) async fn settle(
    docker: &Docker,
    id: &str,
    (finish, was_away): (Finish, bool),
    state: &ContainerState,
) -> Finish {
    let code = state.exit_code.unwrap_or(-1);
    let is_settled = match finish {
        Finish::ByItself => code != 0 && state.oom_killed == Some(true) && !was_away,
        Finish::EngineFailed | Finish::AsEngineLeft => false,
        _ => true,
    };
    if is_settled {
        return finish;
    }
    let patience = (code == 0).then_some(SUCCESS_PATIENCE);
    match look_up(docker, id, state, patience).await {
        (Listed::End, _) => Finish::ByItself,
        (Listed::Stop, _) => Finish::StoppedOutside,
        (Listed::Nothing, away) if code == 0 => {
            if away || finish == Finish::AsEngineLeft {
                Finish::StoppedOutside
            } else {
                finish
            }
        }
        (Listed::Nothing, away) if was_away || away || STOPPED_CODES.contains(&code) => {
            Finish::EngineFailed
        }
        (Listed::Nothing, _) => finish,
    }
}

/// What the list says, as soon as it does or after so long. The other is whether the engine was
/// away.
async fn look_up(
    docker: &Docker,
    id: &str,
    state: &ContainerState,
    patience: Option<Duration>,
) -> (Listed, bool) {
    let mut was_away = false;
    let Some(at) = finished_at(state) else { return (Listed::Nothing, was_away) };
    let since = time(state.started_at.as_deref()).unwrap_or_default();
    for _ in 0..ASKS_MAX {
        let reading = read(docker, id, since, at);
        let read = match patience {
            Some(patience) => timeout(patience, reading).await.unwrap_or(Ok(Listed::Nothing)),
            None => reading.await,
        };
        let error = match read {
            Ok(listed) => return (listed, was_away),
            Err(error) => error,
        };
        tracing::debug!("Cannot learn who ended container {id}: {error}");
        if error.status().is_some() {
            break;
        }
        was_away = true;
        // That waits until the engine answers again.
        inspect(docker, id).await;
    }
    (Listed::Nothing, was_away)
}

/// What is in the list. An end that is in it is found at once; one that is not is waited for as
/// long as it may come, by the engine's own clock.
async fn read(
    docker: &Docker,
    id: &str,
    since: Timestamp,
    at: Timestamp,
) -> Result<Listed, CallError> {
    let filters = HashMap::from([("container", vec![id]), ("type", vec!["container"])]);
    let until = Timestamp(at.0.saturating_add(LISTED_WITHIN_MS));
    let options = EventsOptionsBuilder::default()
        .since(&seconds(since))
        .until(&seconds(until))
        .filters(&filters)
        .build();
    let mut events = std::pin::pin!(docker.events(Some(options)));
    let mut listed = Listed::Nothing;
    let what = "list its events";
    let late = || CallError::Late { what, seconds: READ_DEADLINE.as_secs() };
    loop {
        let next = timeout(READ_DEADLINE, events.next()).await.map_err(|_| late())?;
        match next.transpose().map_err(|error| CallError::new(what, &error))? {
            None => return Ok(listed),
            Some(event) if is_stop(&event) => listed = Listed::Stop,
            Some(event) if event.action.as_deref() == Some("die") => {
                return Ok(if listed == Listed::Nothing { Listed::End } else { listed });
            }
            Some(_) => {}
        }
    }
}

fn is_stop(event: &EventMessage) -> bool {
    let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
    let signal = attributes.and_then(|attributes| attributes.get("signal"));
    event.action.as_deref() == Some("kill")
        && signal.is_some_and(|signal| STOP_SIGNALS.contains(&signal.as_str()))
}

/// A time as the engine reads it.
fn seconds(at: Timestamp) -> String {
    let since = Duration::from_millis(at.0);
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(action: &str, signal: &str) -> EventMessage {
        let attributes = HashMap::from([("signal".to_owned(), signal.to_owned())]);
        let actor = EventActor { attributes: Some(attributes), ..EventActor::default() };
        EventMessage { action: Some(action.into()), actor: Some(actor), ..EventMessage::default() }
    }

    #[test]
    fn only_a_signal_that_stops_is_a_stop() {
        assert!(is_stop(&event("kill", "15")) && is_stop(&event("kill", "9")));
        assert!(!is_stop(&event("kill", "10")) && !is_stop(&event("die", "15")));
        assert!(!is_stop(&EventMessage::default()));
    }

    #[test]
    fn a_time_has_its_fraction_in_nanoseconds() {
        assert_eq!(seconds(Timestamp(12_034)), "12.034000000");
    }
}
