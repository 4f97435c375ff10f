//! Whether this worker is well: the engine answers. A worker that is not says why, gets no new work
//! meanwhile, and goes on with what it has. It must never decide about an attempt, and never need a
//! hand to become well again. Read next: `session.rs`, which tells the master.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::Executor;

/// The pause between two probes of the engine, which no fault cuts short, so that many faults bring
/// on few probes.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(500);
/// What is added to it as long as there is no doubt.
const PROBE_PAUSE_MORE: Duration = Duration::from_millis(2500);

/// Watches until it is dropped.
#[derive(Debug)]
pub(crate) struct Health {
    /// Why this worker is not well; `None` when it is.
    pub(crate) degraded: watch::Receiver<Option<String>>,
    _watching: DropGuard,
}

impl Health {
    /// Begins to watch. The worker counts as well until the first probe says otherwise.
    pub(crate) fn watch(executor: Executor) -> Self {
        let (sender, degraded) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.run_until_cancelled(probe_for_ever(&executor, &sender)).await;
        });
        Self { degraded, _watching: stop.drop_guard() }
    }
}

async fn probe_for_ever(executor: &Executor, sender: &watch::Sender<Option<String>>) {
    let mut away_since = None;
    loop {
        let failed = executor.ping().await.err();
        let reason = failed.map(|why| {
            let since = *away_since.get_or_insert_with(Timestamp::now);
            away(since, &why)
        });
        if reason.is_none() {
            away_since = None;
        }
        tell(sender, reason);
        tokio::time::sleep(PROBE_PAUSE_MIN).await;
        tokio::select! {
            () = tokio::time::sleep(PROBE_PAUSE_MORE) => {}
            () = executor.suspected() => {}
        }
    }
}

/// What happened, since when, and what to do.
fn away(since: Timestamp, why: &str) -> String {
    let since = since.strftime("%H:%M:%S UTC");
    format!(
        "the Docker engine has not answered since {since}: {why}; look at 'systemctl status \
         docker' on the worker's machine"
    )
}

fn tell(sender: &watch::Sender<Option<String>>, reason: Option<String>) {
    sender.send_if_modified(|told| {
        match (&*told, &reason) {
            (None, Some(why)) => tracing::warn!("This worker takes no new work: {why}"),
            (Some(_), None) => tracing::info!("This worker is well again"),
            _ => {}
        }
        let is_new = *told != reason;
        *told = reason;
        is_new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_what_happened_since_when_and_what_to_do() {
        let since = Timestamp::from_second(45_296).unwrap();
        assert_eq!(
            away(since, "nothing listens there"),
            "the Docker engine has not answered since 12:34:56 UTC: nothing listens there; look at \
             'systemctl status docker' on the worker's machine"
        );
    }

    #[test]
    fn only_a_change_is_told() {
        let (sender, mut told) = watch::channel(None);
        for (reason, is_news) in
            [(None, false), (Some("a"), true), (Some("a"), false), (Some("b"), true), (None, true)]
        {
            tell(&sender, reason.map(str::to_owned));
            assert_eq!(told.has_changed().unwrap(), is_news, "{reason:?}");
            assert_eq!(told.borrow_and_update().as_deref(), reason);
        }
    }
}
