//! What a restarted worker does with what the process before it left: its records on one side, its
//! containers in the engine on the other, paired by attempt. It must never start an attempt whose
//! container may have been started before, and never lose an end that was recorded. Read next:
//! `records.rs` (what a record says) and `run.rs` (how an attempt goes on).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_failpoint::failpoint;
use cloudai_model::{AttemptId, AttemptReport, Cause, Outcome, ReportWhat};
use cloudai_worker_core::Restored;
use tokio::sync::Semaphore;

use crate::config::{WorkerConfig, WorkerError};
use crate::data_dir::DataDir;
use crate::engine::Executor;
use crate::executor::Ended;
use crate::executor::docker::{Begin, Found};
use crate::logs;
use crate::records::{Kept, Phase};
use crate::run::Log;

/// Logs that are read again at once.
const LOGS_AT_ONCE: usize = 8;

/// An attempt that goes on.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) kept: Kept,
    pub(crate) how: How,
    pub(crate) log: Log,
}

/// From where.
#[derive(Debug)]
pub(crate) enum How {
    /// Its container is still to run, or to end.
    Run(Begin),
    /// It is over; its log and files go to the master, and its end.
    Deliver(Ended),
}

impl Resumed {
    /// As the ledger knows it.
    pub(crate) fn restored(&self) -> Restored {
        let what = match &self.how {
            How::Run(Begin::With { found, .. }) => match found.started_at() {
                Some(at) => ReportWhat::Started(at),
                None => ReportWhat::Accepted,
            },
            How::Run(Begin::New | Begin::Again) => ReportWhat::Accepted,
            How::Deliver(Ended { started_at, outcome, at, .. }) => {
                ReportWhat::Ended { started_at: *started_at, outcome: outcome.clone(), at: *at }
            }
        };
        let report = AttemptReport { attempt: self.kept.attempt, what };
        Restored { report, spec: self.kept.spec.clone() }
    }
}

/// Everything that goes on, of what is recorded and was found in the engine. What does not go on is
/// removed: containers in the background, files at once.
pub(crate) fn take_up(
    executor: &Executor,
    dirs: &DataDir,
    boot_id: &str,
    config: &WorkerConfig,
    records: Vec<Kept>,
    found: Vec<Found>,
) -> Result<Vec<Resumed>, WorkerError> {
    if !executor.outlives_process() {
        dirs.clean(&BTreeSet::new())?;
        return Ok(Vec::new());
    }
    dirs.clean(&records.iter().map(|kept| kept.attempt).collect())?;
    let (mut containers, mut left) = sort(found);
    failpoint!("worker.adopt.found");
    let mut goes_on = Vec::new();
    for kept in records {
        let found = containers.remove(&kept.attempt);
        let (how, rest) = decide(&kept, found, kept.boot_id != boot_id);
        left.extend(rest);
        goes_on.push((kept, how));
    }
    let log_bytes_max = config.disk.log_bytes_max();
    // Not waited for: the leases of all end while the logs of some are read.
    let reads = Arc::new(Semaphore::new(LOGS_AT_ONCE));
    let resume = |(kept, how): (Kept, How)| {
        let log = logs::reopen(dirs.spool_path(kept.attempt), log_bytes_max, &reads);
        Resumed { kept, how, log }
    };
    let resumed = goes_on.into_iter().map(resume).collect::<Vec<_>>();
    left.extend(containers.into_values());
    tell(&resumed, left.len());
    for found in left {
        executor.remove(found);
    }
    Ok(resumed)
}

/// By attempt, and those that are no attempt's only container: of two, the one that started counts.
fn sort(found: Vec<Found>) -> (BTreeMap<AttemptId, Found>, Vec<Found>) {
    let (mut containers, mut left) = (BTreeMap::<AttemptId, Found>::new(), Vec::new());
    for found in found {
        let Some(attempt) = found.attempt() else {
            left.push(found);
            continue;
        };
        let has_better = containers
            .get(&attempt)
            .is_some_and(|other| other.started_at().is_some() || found.started_at().is_none());
        if has_better {
            left.push(found);
        } else {
            left.extend(containers.insert(attempt, found));
        }
    }
    (containers, left)
}

/// How an attempt goes on, and the container that it needs no more.
fn decide(kept: &Kept, found: Option<Found>, rebooted: bool) -> (How, Option<Found>) {
    let lost = |words| {
        let outcome = match kept.stop {
            Some(stop) => Outcome::new(stop.cause, ""),
            None => Outcome::new(Cause::Infra, words),
        };
        How::Deliver(Ended::unstarted(outcome))
    };
    match (&kept.phase, found) {
        (Phase::Ended(ended), found) => (How::Deliver(ended.clone()), found),
        (Phase::Accepted | Phase::Created, Some(found)) => {
            (How::Run(Begin::With { found, rebooted, stop: kept.stop }), None)
        }
        // The power may have failed between the container's start and the record of it.
        (Phase::Accepted, None) if rebooted => {
            (lost("the machine was restarted, and what became of the container is not known"), None)
        }
        (Phase::Accepted, None) => (How::Run(Begin::Again), None),
        (Phase::Created, None) => {
            (lost("somebody else removed the container while the worker was away"), None)
        }
    }
}

fn tell(resumed: &[Resumed], left: usize) {
    let live = resumed.iter().filter(|resumed| matches!(resumed.how, How::Run(_))).count();
    let ended = resumed.len() - live;
    if !resumed.is_empty() {
        tracing::info!("Taking up {live} attempts, and {ended} that ended, of an earlier process");
    }
    if left > 0 {
        tracing::info!("Removing {left} containers that an earlier process left");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloudai_model::{Session, TaskSpec, Timestamp};

    use super::*;
    use crate::records::BegunStop;

    fn told(phase: &Phase, stop: Option<Cause>, rebooted: bool) -> String {
        let kept = Kept {
            attempt: "task-1-a1".parse().unwrap(),
            session: Session(7),
            boot_id: String::new(),
            spec: Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS)),
            phase: phase.clone(),
            stop: stop.map(|cause| BegunStop {
                cause,
                begun_at: Timestamp(1),
                kill_at: Timestamp(1),
            }),
        };
        match decide(&kept, None, rebooted) {
            (How::Run(begin), None) => format!("{begin:?}"),
            (How::Deliver(ended), None) => ended.outcome.cause.to_string(),
            (_, Some(_)) => panic!("a container came of nothing"),
        }
    }

    #[test]
    fn without_its_container_only_what_surely_never_had_one_is_started() {
        let ended = Phase::Ended(Ended {
            outcome: Outcome::new(Cause::Exit(3), ""),
            started_at: Some(Timestamp(1)),
            at: Timestamp(2),
            files: Vec::new(),
        });
        let stop = Some(Cause::WorkerLost);
        for (phase, stop, rebooted, want) in [
            (&Phase::Accepted, None, false, "Again"),
            (&Phase::Accepted, None, true, "infra"),
            (&Phase::Created, None, false, "infra"),
            (&Phase::Created, None, true, "infra"),
            (&Phase::Created, stop, false, "worker_lost"),
            (&ended, None, false, "exit(3)"),
            (&ended, stop, true, "exit(3)"),
        ] {
            assert_eq!(told(phase, stop, rebooted), want, "{phase:?} {stop:?} {rebooted}");
        }
    }
}
