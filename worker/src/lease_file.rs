//! Until when the leases of this worker run, kept for the process after it: a lease goes on while
//! nobody is there to end it, and a restart must not make it longer. It must never hold up the
//! session: it is written beside it, at most once a second. Read next:
//! `crates/worker-core/src/lease.rs`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloudai_model::Monotonic;
use cloudai_worker_core::LeaseTimes;
use tokio::sync::watch;

/// How long a restarted worker asks for attempts whose lease is over or nearly so, in milliseconds,
/// before it stops them. The master, which decides, answers at once when it is there; one that is
/// restarted at the same time is back within this time, too.
const ASK_MS: u64 = 10_000;
/// The pause between two writes. What is not written yet makes a lease shorter.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// The file, of one boot of the machine: its clock means nothing in another.
#[derive(Debug, Clone)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    boot_id: String,
}

impl LeaseFile {
    pub(crate) fn new(path: PathBuf, boot_id: String) -> Self {
        Self { path, boot_id }
    }

    /// What the process before this one left, and until when this one may ask. A process that is
    /// started again and again without a word from its master asks only once.
    pub(crate) fn take_up(&self, now: Monotonic) -> io::Result<LeaseTimes> {
        let mut times = self.read()?;
        if times.ask_until == Monotonic(0) {
            times.ask_until = now.plus_ms(ASK_MS);
        }
        self.write(times)?;
        Ok(times)
    }

    /// A file that is not there, or cannot be understood, tells of no lease.
    fn read(&self) -> io::Result<LeaseTimes> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(self.parse(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LeaseTimes::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(LeaseTimes::default()),
            Err(error) => Err(error),
        }
    }

    fn parse(&self, text: &str) -> Option<LeaseTimes> {
        let mut words = text.split_whitespace();
        if words.next()? != self.boot_id {
            return None;
        }
        let mut time = || words.next()?.parse().ok().map(Monotonic);
        Some(LeaseTimes { renewed_at: time()?, ask_until: time()? })
    }

    /// In place and in one write of a length that never changes, so that a kill leaves the old
    /// times or the new ones.
    fn write(&self, times: LeaseTimes) -> io::Result<()> {
        let LeaseTimes { renewed_at, ask_until } = times;
        let text = format!("{} {:020} {:020}\n", self.boot_id, renewed_at.0, ask_until.0);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        file.write_all_at(text.as_bytes(), 0)
    }

    /// Writes down each renewal, until the session ends.
    pub(crate) async fn keep(self, mut renewed: watch::Receiver<Monotonic>) {
        while renewed.changed().await.is_ok() {
            let renewed_at = *renewed.borrow_and_update();
            let file = self.clone();
            // A master was heard: the next process may ask anew.
            let times = LeaseTimes { renewed_at, ask_until: Monotonic(0) };
            let written = tokio::task::spawn_blocking(move || file.write(times)).await;
            if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                let path = self.path.display();
                tracing::warn!("Cannot write {path}: {error}; a restart makes leases shorter");
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
    }
}

/// The kernel's name for this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_on_over_a_restart_and_asking_does_not_make_it_longer() {
        let dir = tempfile::tempdir().unwrap();
        let file = |boot: &str| LeaseFile::new(dir.path().join("lease"), boot.to_owned());
        let (renewed_at, ask_until) = (Monotonic(0), Monotonic(5 + ASK_MS));
        let first = LeaseTimes { renewed_at, ask_until };
        assert_eq!(file("boot-1").take_up(Monotonic(5)).unwrap(), first);
        assert_eq!(file("boot-1").take_up(Monotonic(500)).unwrap(), first);
        let (sender, renewed) = watch::channel(Monotonic(0));
        sender.send_replace(Monotonic(1000));
        drop(sender);
        // What was sent before the end is seen first.
        file("boot-1").keep(renewed).await;
        let (renewed_at, ask_until) = (Monotonic(1000), Monotonic(2000 + ASK_MS));
        let later = LeaseTimes { renewed_at, ask_until };
        assert_eq!(file("boot-1").take_up(Monotonic(2000)).unwrap(), later);
        let (renewed_at, ask_until) = (Monotonic(0), Monotonic(7 + ASK_MS));
        let rebooted = LeaseTimes { renewed_at, ask_until };
        assert_eq!(file("boot-2").take_up(Monotonic(7)).unwrap(), rebooted);
    }
}
