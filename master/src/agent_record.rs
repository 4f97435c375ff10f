//! What an external agent did so far in this run, for `status`. It decides nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloudai_api::AgentView;

/// An agent that was not heard for this long is shown as gone, where no deadline is set.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// The calls of agents.
#[derive(Debug)]
pub(crate) struct AgentRecord {
    deadline: Option<Duration>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<Instant>,
    accepted: u64,
    refused: u64,
}

impl AgentRecord {
    /// With the deadline that planning gives an agent, when it gives one.
    pub(crate) fn new(deadline_ms: Option<u64>) -> Self {
        Self { deadline: deadline_ms.map(Duration::from_millis), seen: Mutex::default() }
    }

    pub(crate) fn called(&self, accepted: usize, refused: usize) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.last = Some(Instant::now());
        seen.accepted += accepted as u64;
        seen.refused += refused as u64;
    }

    /// As `status` shows it; `None` as long as none has called.
    pub(crate) fn view(&self) -> Option<AgentView> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = seen.last?.elapsed();
        Some(AgentView {
            active: ago < self.deadline.unwrap_or(GONE_AFTER),
            last_heard_ms_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
            accepted: seen.accepted,
            refused: seen.refused,
        })
    }
}
