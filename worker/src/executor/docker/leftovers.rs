//! Containers that outlived their attempts: made by a create whose answer was lost, or said to be
//! removed and not gone. What has ended here lately is compared with what the engine has, again and
//! again, so that no failing call has to be remembered. It must never touch the container of an
//! attempt that did not end in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use cloudai_model::AttemptId;
use tokio::time::Instant;

use super::DockerSettings;
use super::remove::{Listed, list, remove_once};

/// How often the engine is asked what it has.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long an attempt that ended is looked for: an engine under load may still carry out what
/// nobody waits for any more.
const LOOKED_FOR: Duration = Duration::from_mins(10);
/// Most attempts that are looked for at once.
const ATTEMPTS_MAX: usize = 100_000;

/// The attempts that ended lately, and when.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Mutex<BTreeMap<AttemptId, Instant>>);

impl Leftovers {
    /// An attempt begins: what carries its label is in use.
    pub(super) fn begin(&self, attempt: AttemptId) {
        self.lock().remove(&attempt);
    }

    /// An attempt has ended: nothing of it may be there any more.
    pub(super) fn end(&self, attempt: AttemptId) {
        let mut ended = self.lock();
        ended.insert(attempt, Instant::now());
        if ended.len() > ATTEMPTS_MAX {
            ended.pop_first();
        }
    }

    /// Forgets what ended long ago; says whether anything is left to look for.
    fn expire(&self) -> bool {
        let mut ended = self.lock();
        ended.retain(|_, at| at.elapsed() < LOOKED_FOR);
        !ended.is_empty()
    }

    fn has(&self, attempt: &AttemptId) -> bool {
        self.lock().contains_key(attempt)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes what was left over, for ever.
pub(super) async fn tend(docker: Docker, settings: DockerSettings, leftovers: Arc<Leftovers>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !leftovers.expire() {
            continue;
        }
        let found = match list(&docker, &settings, None).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!("Leftovers are looked for again: {error}");
                continue;
            }
        };
        // Asked only now: an attempt that began meanwhile is none of them.
        for Listed { id, attempt } in found {
            let Some(attempt) = attempt.filter(|attempt| leftovers.has(attempt)) else { continue };
            tracing::info!(%attempt, "Removing container {id}, which outlived its attempt");
            if let Err(error) = remove_once(&docker, &id).await {
                tracing::debug!(%attempt, "Container {id} is still there: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(no: usize) -> AttemptId {
        format!("task-{no}-a1").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_ended_lately_and_did_not_begin_again_is_left_over() {
        let leftovers = Leftovers::default();
        assert!(!leftovers.expire());
        leftovers.end(attempt(1));
        leftovers.end(attempt(2));
        leftovers.begin(attempt(2));
        assert!(leftovers.expire());
        assert!(leftovers.has(&attempt(1)) && !leftovers.has(&attempt(2)));
        tokio::time::advance(LOOKED_FOR).await;
        assert!(!leftovers.expire());
        assert!(!leftovers.has(&attempt(1)));
    }

    #[tokio::test]
    async fn the_number_of_attempts_is_bounded() {
        let leftovers = Leftovers::default();
        for no in 1..=ATTEMPTS_MAX + 1 {
            leftovers.end(attempt(no));
        }
        assert_eq!(leftovers.lock().len(), ATTEMPTS_MAX);
    }
}
