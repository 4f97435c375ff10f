//! Memory and store: compared after every commit.

use cloudai_master_core::{Core, Settings};
use cloudai_model::{Now, Snapshot};

use crate::disk::Disk;

/// `restore(load())` equals the live state.
pub(crate) fn check_store(core: &Core, disk: &mut Disk, now: Now) -> Result<(), String> {
    let live = core.facts().snapshot();
    let stored = disk.load().map_err(|error| format!("the store cannot be read: {error}"))?;
    if let Some(what) = find_difference(&stored, &live) {
        return Err(format!("the store gives back the live state: it has another {what}"));
    }
    let restored = Core::restore(stored, Settings::default(), now);
    let restored = restored.map_err(|error| format!("what is stored can be restored: {error}"))?;
    if restored.facts().snapshot() != live {
        return Err("restoring changes nothing: it did".to_owned());
    }
    core.facts().assert_consistent();
    Ok(())
}

/// The first thing in which two snapshots differ, by name.
fn find_difference(stored: &Snapshot, live: &Snapshot) -> Option<String> {
    if stored == live {
        return None;
    }
    let mut jobs = stored.jobs.keys().chain(live.jobs.keys());
    let job = jobs.find(|id| stored.jobs.get(*id) != live.jobs.get(*id));
    let mut workers = stored.workers.keys().chain(live.workers.keys());
    let worker = workers.find(|id| stored.workers.get(*id) != live.workers.get(*id));
    let worker = worker.map(ToString::to_string);
    Some(job.map(ToString::to_string).or(worker).unwrap_or_else(|| "last number".to_owned()))
}
