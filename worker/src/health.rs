//! Whether this worker is well: the engine answers, and its folder can be written to, on a disk
//! with room. A worker that is not says why, gets no new work meanwhile, and goes on with what it
//! has. It must never decide about an attempt, and never need a hand to become well again. Read
//! next: `session.rs`, which tells the master.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::disk::disk_pressure;
use crate::engine::Executor;

/// How long a look at the disk may take.
const DISK_DEADLINE: Duration = Duration::from_secs(5);
/// The file that is written to see that one can be.
const PROBE_FILE: &str = "probe";

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
    /// Begins to watch the engine, and the disk under `folder`, which may be `percent_max` percent
    /// full. The worker counts as well until the first look says otherwise.
    pub(crate) fn watch(executor: Executor, folder: PathBuf, percent_max: u8) -> Self {
        let (sender, degraded) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let disk = Disk { folder, percent_max, look: None };
            stopped.run_until_cancelled(look_for_ever(&executor, disk, &sender)).await;
        });
        Self { degraded, _watching: stop.drop_guard() }
    }
}

async fn look_for_ever(
    executor: &Executor,
    mut disk: Disk,
    sender: &watch::Sender<Option<String>>,
) {
    let mut away_since = None;
    loop {
        let (engine, disk) = tokio::join!(executor.ping(), disk.look());
        let engine = engine.err().map(|why| {
            let since = *away_since.get_or_insert_with(Timestamp::now);
            away(since, &why)
        });
        if engine.is_none() {
            away_since = None;
        }
        let reasons = engine.into_iter().chain(disk).collect::<Vec<_>>();
        tell(sender, (!reasons.is_empty()).then(|| reasons.join("; and ")));
        tokio::time::sleep(PROBE_PAUSE_MIN).await;
        tokio::select! {
            () = tokio::time::sleep(PROBE_PAUSE_MORE) => {}
            () = executor.suspected() => {}
        }
    }
}

/// The disk under the worker's folder.
#[derive(Debug)]
struct Disk {
    folder: PathBuf,
    percent_max: u8,
    /// A look that was late. A disk that hangs is not looked at by more and more threads.
    look: Option<JoinHandle<Option<String>>>,
}

impl Disk {
    /// What is wrong with it.
    async fn look(&mut self) -> Option<String> {
        let (folder, percent_max) = (self.folder.clone(), self.percent_max);
        let look = self.look.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                disk_pressure(&folder, percent_max).or_else(|| find_write_error(&folder))
            })
        });
        let Ok(found) = tokio::time::timeout(DISK_DEADLINE, look).await else {
            let folder = self.folder.display();
            return Some(format!("the disk under {folder} does not answer; see that it is well"));
        };
        self.look = None;
        found.unwrap_or_else(|error| Some(format!("the disk cannot be looked at: {error}")))
    }
}

/// Why nothing can be written in the folder.
fn find_write_error(folder: &Path) -> Option<String> {
    let path = folder.join(PROBE_FILE);
    let written = std::fs::write(&path, b"well").and_then(|()| std::fs::remove_file(&path));
    let error = written.err()?;
    let folder = folder.display();
    Some(format!("nothing can be written in {folder}: {error}; see that its disk is well"))
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

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_to_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk { folder: folder.path().to_owned(), percent_max: 100, look: None };
        assert_eq!(disk.look().await, None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Even an administrator cannot write a file where a folder is.
        std::fs::create_dir(folder.path().join(PROBE_FILE)).unwrap();
        let words = disk.look().await.unwrap();
        assert!(words.starts_with("nothing can be written in /"), "{words}");
        std::fs::remove_dir(folder.path().join(PROBE_FILE)).unwrap();
        assert_eq!(disk.look().await, None);
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
