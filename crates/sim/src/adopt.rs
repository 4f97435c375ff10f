//! The birth and the death of a worker process. At its birth, as in `worker/src/adopt.rs`, the
//! records of the process before are paired with the containers that the engine has: what has both
//! goes on, what ended is delivered again, what has no record is removed.

use cloudai_model::{AttemptId, AttemptReport, Cause, Outcome, ReportWhat, Timestamp};
use cloudai_worker_core::{Ledger, LedgerConfig, Restored};

use crate::faults::{Class, WorkerPoint};
use crate::life::{Run, Step};
use crate::net::StreamId;
use crate::plant::Plant;
use crate::records::{Ended, Phase, Record};
use crate::worker::{Process, WorkerWhat};
use crate::world::{Happening, World};

/// How long whoever looks after the machine waits before he starts a worker that ended, and a
/// worker that cannot reach its engine before it looks again, in milliseconds.
pub(crate) const RESTART_MS: u64 = 2_000;
/// How long a look at a container waits for its start that is under way, in milliseconds.
const LOOK_AGAIN_MS: u64 = 10;

/// From where an attempt goes on.
#[derive(Debug)]
enum How {
    /// It never had a container that was started, and has none.
    Again,
    /// Its container is there and was not started.
    Unstarted,
    /// Its container was started.
    Started(Timestamp),
    Deliver(Ended),
}

impl How {
    fn restored(&self, attempt: AttemptId, record: &Record) -> Restored {
        let what = match self {
            Self::Again | Self::Unstarted => ReportWhat::Accepted,
            Self::Started(at) => ReportWhat::Started(*at),
            Self::Deliver(Ended { started_at, outcome, at }) => {
                ReportWhat::Ended { started_at: *started_at, outcome: outcome.clone(), at: *at }
            }
        };
        Restored { report: AttemptReport { attempt, what }, spec: record.spec.clone() }
    }
}

impl World {
    pub(crate) fn on_worker_starts(&mut self, worker: usize) {
        if self.workers[worker].process.is_some() {
            return;
        }
        // The engine cannot be asked what an earlier process left.
        if let Some(until_ms) = self.find_engine_wait(worker) {
            self.queue.at(until_ms + RESTART_MS, Happening::WorkerStarts { worker });
            return;
        }
        // It tells of a container when what it does with it is done.
        if self.engines[worker].is_starting() {
            self.queue.after(LOOK_AGAIN_MS, Happening::WorkerStarts { worker });
            return;
        }
        self.workers[worker].life += 1;
        let resumed = self.take_up(worker);
        let now_ms = self.queue.now_ms();
        let it = &mut self.workers[worker];
        let lease = it.disk.take_up_lease(it.plan.clock.mono(now_ms));
        let restored: Vec<_> =
            resumed.iter().map(|(attempt, record, how)| how.restored(*attempt, record)).collect();
        let names: Vec<AttemptId> = restored.iter().map(|one| one.report.attempt).collect();
        let config = LedgerConfig { attempts_max: it.plan.attempts_max };
        it.process = Some(Process::new(Ledger::restore(config, lease, restored)));
        let count = names.len();
        self.say_at(worker, format_args!("starts, takes up {count}"));
        self.judge_restart(worker, &names);
        for (attempt, record, how) in resumed {
            self.resume(worker, attempt, record, &how);
        }
        self.plan_worker(worker, 0, WorkerWhat::Connect);
    }

    /// Everything that goes on; what does not is removed.
    fn take_up(&mut self, worker: usize) -> Vec<(AttemptId, Record, How)> {
        if self.plant == Some(Plant::RecordForgotten) {
            let records = &mut self.workers[worker].disk.records;
            records.retain(|_, record| !matches!(record.phase, Phase::Ended(_)));
        }
        if self.plant == Some(Plant::StopForgotten) {
            let records = self.workers[worker].disk.records.values_mut();
            records.for_each(|record| record.stopped_by = None);
        }
        let records: Vec<(AttemptId, Record)> =
            self.workers[worker].disk.records.iter().map(|(id, one)| (*id, one.clone())).collect();
        let has_record =
            |attempt: &AttemptId| self.workers[worker].disk.records.contains_key(attempt);
        let left: Vec<AttemptId> =
            self.engines[worker].containers.keys().copied().filter(|id| !has_record(id)).collect();
        for attempt in left {
            self.remove_container(worker, attempt);
        }
        let decide = |(attempt, record): (AttemptId, Record)| {
            let how = self.decide(worker, attempt, &record.phase);
            (attempt, record, how)
        };
        records.into_iter().map(decide).collect()
    }

    fn decide(&mut self, worker: usize, attempt: AttemptId, phase: &Phase) -> How {
        let found = self.engines[worker].containers.get(&attempt).map(|one| one.started_at);
        match (phase, found) {
            (Phase::Ended(ended), found) => {
                if found.is_some() {
                    self.remove_container(worker, attempt);
                }
                How::Deliver(ended.clone())
            }
            (_, Some(Some(_))) if self.plant == Some(Plant::AdoptRestarts) => {
                self.remove_container(worker, attempt);
                How::Again
            }
            (_, Some(Some(at))) => How::Started(at),
            (_, Some(None)) => How::Unstarted,
            (Phase::Accepted, None) => How::Again,
            (Phase::Created, None) => {
                let outcome = Outcome::new(Cause::Infra, "somebody removed the container");
                self.oracle.truth.ended(attempt, &outcome);
                How::Deliver(Ended { started_at: None, outcome, at: self.wall_of(worker) })
            }
        }
    }

    /// Goes on with an attempt of an earlier process.
    fn resume(&mut self, worker: usize, attempt: AttemptId, record: Record, how: &How) {
        self.say_at(worker, format_args!("takes up {attempt}: {how:?}"));
        let (now_ms, wall) = (self.queue.now_ms(), self.wall_of(worker));
        let stopped_by = record.stopped_by;
        let timeout_ms = record.spec.limits.timeout_ms;
        let mut run = Run::new(record.spec, now_ms);
        run.is_resumed = true;
        let ms = self.engines[worker].draw_answer_ms();
        let mut overrun_ms = None;
        let step = match how {
            How::Again => Step::Create,
            How::Unstarted => Step::Created { made: true },
            How::Started(at) => {
                run.rejoin(*at, stopped_by);
                overrun_ms = timeout_ms.map(|limit_ms| limit_ms.saturating_sub(wall.ms_since(*at)));
                Step::Exited
            }
            How::Deliver(_) => {
                run.deliver();
                Step::Deliver
            }
        };
        let Some(process) = self.workers[worker].process.as_mut() else { return };
        process.runs.insert(attempt, run);
        self.tell_run(worker, ms, attempt, step);
        if let Some(ms) = overrun_ms {
            self.tell_run(worker, ms, attempt, Step::TimedOut);
        }
    }

    /// The process is gone at once; its connections end, its containers go on.
    pub(crate) fn kill_worker(&mut self, worker: usize, down_ms: u64) -> bool {
        let it = &mut self.workers[worker];
        if it.process.take().is_none() {
            return false;
        }
        it.stash = None;
        self.close_worker_streams(worker);
        self.queue.after(down_ms, Happening::WorkerStarts { worker });
        true
    }

    fn close_worker_streams(&mut self, worker: usize) {
        for index in 0..self.net.streams.len() {
            if self.net.streams[index].worker == worker {
                self.close_at_worker(StreamId(index));
            }
        }
    }

    /// A death that waits for a point of an attempt's way.
    pub(crate) fn doom_worker(&mut self, worker: usize, point: WorkerPoint, down_ms: u64) -> bool {
        if point == WorkerPoint::AtOnce {
            return self.kill_worker(worker, down_ms);
        }
        self.workers[worker].doomed = Some((point, down_ms));
        false
    }

    /// An attempt came to this point; true when its process died of it.
    pub(crate) fn passes(&mut self, worker: usize, point: WorkerPoint) -> bool {
        let Some((_, down_ms)) = self.workers[worker].doomed.filter(|(at, _)| *at == point) else {
            return false;
        };
        self.workers[worker].doomed = None;
        let dies = self.kill_worker(worker, down_ms);
        if dies {
            self.report.count(Class::WorkerDiesBetweenSteps);
            self.say_at(worker, format_args!("killed at {point:?}"));
        }
        dies
    }
}
