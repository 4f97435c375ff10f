//! The executor of a simulated worker: the way of one attempt through the engine, as
//! `worker/src/executor/docker/life.rs` and `worker/src/run.rs` go it: create, start, wait, keep,
//! remove, deliver. It dies with its worker process; the containers do not.

use std::sync::Arc;

use cloudai_model::{AttemptId, Cause, Outcome, TaskSpec, Timestamp};
use cloudai_worker_core::Input;

use crate::engine::{ContainerState, EngineCall};
use crate::faults::WorkerPoint;
use crate::records::{Ended, Phase, Record};
use crate::worker::WorkerWhat;
use crate::world::{Happening, World};

/// Pause between two signals to a container that does not end.
const KILL_INTERVAL_MS: u64 = 10_000;
/// Pause between two tries to deliver the log and the files.
const DELIVER_PAUSE_MS: u64 = 1_500;

/// An attempt in the hands of the executor.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) spec: Arc<TaskSpec>,
    /// When it was taken, in true time.
    pub(crate) since_ms: u64,
    stage: Stage,
    /// The wish to end it, with the cause that its outcome shall carry.
    pub(crate) stop: Option<(Cause, u64)>,
    /// The cause under which it was signalled while it ran.
    stopped_by: Option<Cause>,
    started_at: Option<Timestamp>,
    /// Whether an earlier process may have done a part of this.
    pub(crate) is_resumed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Creating,
    Starting,
    Waiting,
    Keeping(Outcome),
    Removing(Ended),
    Delivering,
    Done,
}

/// What happens next to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Accept,
    Create,
    /// The engine has answered; false when it has a container of this name.
    Created {
        made: bool,
    },
    Start,
    /// The engine has answered.
    Started {
        runs: bool,
    },
    /// The engine says that the container does not run.
    Exited,
    /// Its time-out is over.
    TimedOut,
    /// It is asked to stop.
    Stop,
    /// Its grace is over.
    Kill,
    /// Its end goes to the disk.
    Keep,
    /// The container is removed.
    Removed,
    /// The log and the files go to the master.
    Deliver,
}

impl Run {
    pub(crate) const fn new(spec: Arc<TaskSpec>, since_ms: u64) -> Self {
        Self {
            spec,
            since_ms,
            stage: Stage::Creating,
            stop: None,
            stopped_by: None,
            started_at: None,
            is_resumed: false,
        }
    }

    /// Its container was started by an earlier process.
    pub(crate) fn rejoin(&mut self, started_at: Timestamp, stopped_by: Option<Cause>) {
        self.stopped_by = stopped_by;
        (self.stage, self.started_at) = (Stage::Waiting, Some(started_at));
    }

    /// It ended in an earlier process.
    pub(crate) fn deliver(&mut self) {
        self.stage = Stage::Delivering;
    }

    /// Whether it was over its time-out before it was taken up.
    fn is_overrun(&self, at: Timestamp) -> bool {
        let ran_ms = self.started_at.filter(|_| self.is_resumed).map(|since| at.ms_since(since));
        let limit_ms = self.spec.limits.timeout_ms;
        ran_ms.zip(limit_ms).is_some_and(|(ran_ms, limit_ms)| ran_ms >= limit_ms)
    }

    /// Whether its container may still run, and nobody has asked for its end.
    pub(crate) const fn is_claimed(&self) -> bool {
        let over = matches!(
            self.stage,
            Stage::Keeping(_) | Stage::Removing(_) | Stage::Delivering | Stage::Done
        );
        !over && self.stop.is_none()
    }
}

impl World {
    fn find_run(&mut self, worker: usize, attempt: AttemptId) -> Option<&mut Run> {
        self.workers[worker].process.as_mut()?.runs.get_mut(&attempt)
    }

    /// Plans the next step of a run.
    pub(crate) fn tell_run(&mut self, worker: usize, ms: u64, attempt: AttemptId, step: Step) {
        let life = self.workers[worker].life;
        let what = WorkerWhat::Run { attempt, step };
        self.queue.after(ms, Happening::Worker { worker, life, what });
    }

    pub(crate) fn begin_run(&mut self, worker: usize, attempt: AttemptId, spec: Arc<TaskSpec>) {
        let now_ms = self.queue.now_ms();
        let Some(process) = self.workers[worker].process.as_mut() else { return };
        process.runs.insert(attempt, Run::new(spec, now_ms));
        self.tell_run(worker, 1, attempt, Step::Accept);
    }

    /// Asks a run to end, once.
    pub(crate) fn stop_run(&mut self, worker: usize, attempt: AttemptId, cause: Cause, grace: u64) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stop.is_none() {
            run.stop = Some((cause, grace));
            self.tell_run(worker, 0, attempt, Step::Stop);
        }
    }

    pub(crate) fn on_run(&mut self, worker: usize, attempt: AttemptId, step: Step) {
        let needs_engine = !matches!(step, Step::Accept | Step::Keep | Step::Deliver);
        if needs_engine && let Some(until_ms) = self.find_engine_wait(worker) {
            let life = self.workers[worker].life;
            let what = WorkerWhat::Run { attempt, step };
            self.queue.at(until_ms, Happening::Worker { worker, life, what });
            return;
        }
        match step {
            Step::Accept => self.accept(worker, attempt),
            Step::Create => self.create(worker, attempt),
            Step::Created { made } => self.created(worker, attempt, made),
            Step::Start => self.start(worker, attempt),
            Step::Started { runs } => self.started(worker, attempt, runs),
            Step::Exited => self.exited(worker, attempt),
            Step::TimedOut => self.timed_out(worker, attempt),
            Step::Stop => self.stop(worker, attempt),
            Step::Kill => self.kill(worker, attempt),
            Step::Keep => self.keep(worker, attempt),
            Step::Removed => self.removed(worker, attempt),
            Step::Deliver => self.deliver(worker, attempt),
        }
    }

    fn accept(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        let spec = Arc::clone(&run.spec);
        if self.passes(worker, WorkerPoint::BeforeRecord) {
            return;
        }
        let record = Record { spec, phase: Phase::Accepted, stopped_by: None };
        self.workers[worker].disk.records.insert(attempt, record);
        self.oracle.truth.recorded(worker, attempt);
        if !self.passes(worker, WorkerPoint::Accepted) {
            self.tell_run(worker, 1, attempt, Step::Create);
        }
    }

    fn create(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage != Stage::Creating {
            return;
        }
        if let Some((cause, _)) = run.stop {
            self.finish_run(worker, attempt, Outcome::new(cause, ""));
            return;
        }
        let spec = Arc::clone(&run.spec);
        if self.engine_refuses(worker) {
            let cause =
                if self.engines[worker].draw_percent() < 70 { Cause::Infra } else { Cause::Image };
            self.finish_run(worker, attempt, Outcome::new(cause, "the engine refused a create"));
            return;
        }
        self.ask_engine(worker, attempt, EngineCall::Create(spec));
    }

    fn created(&mut self, worker: usize, attempt: AttemptId, made: bool) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage != Stage::Creating {
            return;
        }
        if !made {
            // An earlier process asked for it; it was never started, or the record would say so.
            self.remove_container(worker, attempt);
            self.tell_run(worker, 1, attempt, Step::Create);
            return;
        }
        if self.passes(worker, WorkerPoint::Created) {
            return;
        }
        self.workers[worker].disk.write(attempt, Phase::Created);
        if self.passes(worker, WorkerPoint::Marked) {
            return;
        }
        if let Some(run) = self.find_run(worker, attempt) {
            run.stage = Stage::Starting;
        }
        self.tell_run(worker, 1, attempt, Step::Start);
    }

    fn start(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage != Stage::Starting {
            return;
        }
        if let Some((cause, _)) = run.stop {
            self.finish_run(worker, attempt, Outcome::new(cause, ""));
            return;
        }
        if self.engine_refuses(worker) {
            self.not_started(worker, attempt);
        } else {
            self.ask_engine(worker, attempt, EngineCall::Start);
        }
    }

    fn not_started(&mut self, worker: usize, attempt: AttemptId) {
        let outcome = Outcome::new(Cause::Infra, "the engine refused a start");
        self.finish_run(worker, attempt, outcome);
    }

    fn started(&mut self, worker: usize, attempt: AttemptId, runs: bool) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage != Stage::Starting {
            return;
        }
        let (timeout_ms, is_stopped) = (run.spec.limits.timeout_ms, run.stop.is_some());
        if !runs {
            return self.not_started(worker, attempt);
        }
        if self.passes(worker, WorkerPoint::Started) {
            return;
        }
        let at = self.wall_of(worker);
        if let Some(run) = self.find_run(worker, attempt) {
            (run.stage, run.started_at) = (Stage::Waiting, Some(at));
        }
        if is_stopped {
            self.tell_run(worker, 0, attempt, Step::Stop);
        }
        // It may be over before its start is answered.
        self.tell_run(worker, 1, attempt, Step::Exited);
        if let Some(timeout_ms) = timeout_ms {
            self.tell_run(worker, timeout_ms, attempt, Step::TimedOut);
        }
        self.step_ledger(worker, Input::Started { attempt, at });
    }

    fn timed_out(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage == Stage::Waiting && run.stopped_by.is_none() {
            let grace_ms = run.spec.limits.grace_ms;
            self.signal(worker, attempt, Cause::Timeout, grace_ms);
        }
    }

    fn stop(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        let (Some((cause, grace_ms)), Stage::Waiting) = (run.stop, &run.stage) else { return };
        match run.stopped_by {
            None => self.signal(worker, attempt, cause, grace_ms),
            // The time-out was first; a request may have less time than its grace.
            Some(_) => self.tell_run(worker, grace_ms, attempt, Step::Kill),
        }
    }

    fn signal(&mut self, worker: usize, attempt: AttemptId, cause: Cause, grace_ms: u64) {
        if !self.signal_container(worker, attempt, grace_ms == 0) {
            return;
        }
        self.workers[worker].disk.write_stop(attempt, cause);
        self.say_at(worker, format_args!("engine: signalled {attempt} ({cause})"));
        if self.passes(worker, WorkerPoint::Signalled) {
            return;
        }
        if let Some(run) = self.find_run(worker, attempt) {
            run.stopped_by = Some(cause);
        }
        let wait_ms = if grace_ms == 0 { KILL_INTERVAL_MS } else { grace_ms };
        self.tell_run(worker, wait_ms, attempt, Step::Kill);
    }

    fn kill(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage == Stage::Waiting && self.signal_container(worker, attempt, true) {
            self.tell_run(worker, KILL_INTERVAL_MS, attempt, Step::Kill);
        }
    }

    fn exited(&mut self, worker: usize, attempt: AttemptId) {
        let state = self.engines[worker].containers.get(&attempt).map(|one| one.state);
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage != Stage::Waiting {
            return;
        }
        let outcome = match (run.stopped_by, state) {
            (_, Some(ContainerState::Running | ContainerState::Created)) => return,
            (Some(cause), _) => Outcome::new(cause, ""),
            (None, Some(ContainerState::Exited { code, at }))
                if code != 0 && run.is_overrun(at) =>
            {
                Outcome::new(Cause::Timeout, "")
            }
            (None, Some(ContainerState::Exited { code, .. })) => {
                Outcome::new(Cause::Exit(code), "")
            }
            (None, None) => Outcome::new(Cause::Infra, "somebody removed the container"),
        };
        self.finish_run(worker, attempt, outcome);
    }

    /// The outcome is known; it is told when the container is gone.
    fn finish_run(&mut self, worker: usize, attempt: AttemptId, outcome: Outcome) {
        if let Some(run) = self.find_run(worker, attempt) {
            run.stage = Stage::Keeping(outcome);
            self.tell_run(worker, 1, attempt, Step::Keep);
        }
    }

    fn keep(&mut self, worker: usize, attempt: AttemptId) {
        let at = self.wall_of(worker);
        let Some(run) = self.find_run(worker, attempt) else { return };
        let Stage::Keeping(outcome) = &run.stage else { return };
        let ended = Ended { started_at: run.started_at, outcome: outcome.clone(), at };
        run.stage = Stage::Removing(ended.clone());
        if self.passes(worker, WorkerPoint::BeforeEnd) {
            return;
        }
        self.oracle.truth.ended(attempt, &ended.outcome);
        self.workers[worker].disk.write(attempt, Phase::Ended(ended));
        if !self.passes(worker, WorkerPoint::Ended) {
            let ms = self.engines[worker].draw_answer_ms();
            self.tell_run(worker, ms, attempt, Step::Removed);
        }
    }

    fn removed(&mut self, worker: usize, attempt: AttemptId) {
        let Some(run) = self.find_run(worker, attempt) else { return };
        let Stage::Removing(ended) = std::mem::replace(&mut run.stage, Stage::Delivering) else {
            return;
        };
        let Ended { outcome, at, .. } = ended;
        self.remove_container(worker, attempt);
        if self.passes(worker, WorkerPoint::Removed) {
            return;
        }
        self.say_at(worker, format_args!("{attempt} ended: {}", outcome.cause));
        self.step_ledger(worker, Input::Ended { attempt, outcome, at });
        let ms = self.draw_delay_ms();
        self.tell_run(worker, ms, attempt, Step::Deliver);
    }

    /// The log and the files reach the master only while both are up and connected.
    fn deliver(&mut self, worker: usize, attempt: AttemptId) {
        let welcomed = self.workers[worker].process.as_ref().is_some_and(|one| one.is_welcomed);
        let reaches = welcomed && self.is_connected(worker) && self.master.life_up().is_some();
        let Some(run) = self.find_run(worker, attempt) else { return };
        if run.stage != Stage::Delivering {
            return;
        }
        if reaches {
            run.stage = Stage::Done;
            self.step_ledger(worker, Input::Delivered { attempt });
        } else {
            self.tell_run(worker, DELIVER_PAUSE_MS, attempt, Step::Deliver);
        }
    }
}
