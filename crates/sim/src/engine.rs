//! A machine's container engine: it outlives the worker process, knows what really happened in its
//! containers, and can hang, refuse, and lose one. It decides nothing about attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_model::{AttemptId, TaskSpec, Timestamp};
use fastrand::Rng;

use crate::faults::Class;
use crate::life::Step;
use crate::program::Program;
use crate::worker::WorkerWhat;
use crate::world::{Happening, World};

/// Longest answer of a healthy engine, in milliseconds.
pub(crate) const ANSWER_MS_MAX: u64 = 60;

/// How often a worker looks for containers that outlived their attempts, in milliseconds.
const SWEEP_MS: u64 = 5_000;

/// One engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) containers: BTreeMap<AttemptId, Container>,
    /// Until when it answers nothing.
    hangs_until_ms: u64,
    /// Starts that are under way.
    starting: BTreeSet<AttemptId>,
    random: Rng,
}

/// What is asked of an engine. It is done even when the process that asked is gone.
#[derive(Debug, Clone)]
pub(crate) enum EngineCall {
    Create(Arc<TaskSpec>),
    Start,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) state: ContainerState,
    pub(crate) spec: Arc<TaskSpec>,
    /// As the engine recorded it.
    pub(crate) started_at: Option<Timestamp>,
    /// Tells its end from that of an earlier one of the same name.
    number: u64,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerState {
    Created,
    Running,
    Exited { code: i32, at: Timestamp },
}

impl ContainerState {
    pub(crate) const fn is_running(self) -> bool {
        matches!(self, Self::Running)
    }
}

impl Engine {
    pub(crate) fn new(random: Rng) -> Self {
        Self { containers: BTreeMap::new(), hangs_until_ms: 0, starting: BTreeSet::new(), random }
    }

    pub(crate) const fn hangs(&self, now_ms: u64) -> bool {
        self.hangs_until_ms > now_ms
    }

    pub(crate) fn is_starting(&self) -> bool {
        !self.starting.is_empty()
    }

    /// How long the engine takes for one call, from now.
    pub(crate) fn draw_answer_ms(&mut self) -> u64 {
        self.random.u64(1..=ANSWER_MS_MAX)
    }

    pub(crate) fn draw_percent(&mut self) -> u8 {
        self.random.u8(0..100)
    }
}

impl World {
    /// Until when calls to a worker's engine wait; `None` when it answers.
    pub(crate) fn find_engine_wait(&self, worker: usize) -> Option<u64> {
        let engine = &self.engines[worker];
        engine.hangs(self.queue.now_ms()).then_some(engine.hangs_until_ms)
    }

    pub(crate) fn hang_engine(&mut self, worker: usize, ms: u64) {
        let until_ms = self.queue.now_ms() + ms;
        let engine = &mut self.engines[worker];
        engine.hangs_until_ms = until_ms.max(engine.hangs_until_ms);
    }

    pub(crate) fn mend_engines(&mut self) {
        for engine in &mut self.engines {
            engine.hangs_until_ms = 0;
        }
    }

    /// Whether the engine refuses this call.
    pub(crate) fn engine_refuses(&mut self, worker: usize) -> bool {
        let refuses = self.engines[worker].draw_percent() < self.rates.engine_fail_percent;
        if refuses {
            self.report.count(Class::EngineFails);
        }
        refuses
    }

    /// Sends a call to the engine, which carries it out whatever becomes of the caller.
    pub(crate) fn ask_engine(&mut self, worker: usize, attempt: AttemptId, call: EngineCall) {
        let ms = self.engines[worker].draw_answer_ms();
        if matches!(call, EngineCall::Start) {
            self.engines[worker].starting.insert(attempt);
        }
        let life = self.workers[worker].life;
        self.queue.after(ms, Happening::Engine { worker, life, attempt, call });
    }

    pub(crate) fn on_engine(
        &mut self,
        worker: usize,
        life: u32,
        attempt: AttemptId,
        call: EngineCall,
    ) {
        if let Some(until_ms) = self.find_engine_wait(worker) {
            self.queue.at(until_ms, Happening::Engine { worker, life, attempt, call });
            return;
        }
        let step = match call {
            EngineCall::Create(spec) => {
                let made = !self.engines[worker].containers.contains_key(&attempt);
                if made {
                    self.create_container(worker, attempt, spec);
                }
                Step::Created { made }
            }
            EngineCall::Start => {
                self.engines[worker].starting.remove(&attempt);
                Step::Started { runs: self.start_container(worker, attempt) }
            }
        };
        if self.workers[worker].life_up() != Some(life) {
            self.queue.after(SWEEP_MS, Happening::EngineSweeps { worker, attempt });
        }
        let what = WorkerWhat::Run { attempt, step };
        self.queue.after(1, Happening::Worker { worker, life, what });
    }

    /// What a call of a process that is gone made, and no attempt of the present one needs.
    pub(crate) fn sweep(&mut self, worker: usize, attempt: AttemptId) {
        let is_left = self.engines[worker].containers.contains_key(&attempt);
        let process = self.workers[worker].process.as_ref();
        match process.map(|process| process.runs.contains_key(&attempt)) {
            Some(false) if is_left && !self.engines[worker].hangs(self.queue.now_ms()) => {
                self.remove_container(worker, attempt);
            }
            Some(false) if is_left => {
                self.queue.after(SWEEP_MS, Happening::EngineSweeps { worker, attempt });
            }
            _ => {}
        }
    }

    fn create_container(&mut self, worker: usize, attempt: AttemptId, spec: Arc<TaskSpec>) {
        let number = self.draw_number();
        let state = ContainerState::Created;
        let container = Container { state, spec, started_at: None, number };
        self.say_at(worker, format_args!("engine: created {attempt}"));
        self.engines[worker].containers.insert(attempt, container);
    }

    /// The container begins to run, once; false when it is not there.
    fn start_container(&mut self, worker: usize, attempt: AttemptId) -> bool {
        let at = self.wall_of(worker);
        let Some(container) = self.engines[worker].containers.get_mut(&attempt) else {
            return false;
        };
        if container.started_at.is_some() {
            return true;
        }
        container.state = ContainerState::Running;
        container.started_at = Some(at);
        let (run_ms, code) = Program::of(&container.spec).fate(self.scenario.seed, attempt);
        let number = container.number;
        self.queue
            .after(run_ms, Happening::ContainerEnds { worker, attempt, number, code: Some(code) });
        self.say_at(worker, format_args!("engine: started {attempt}"));
        self.judge_start(worker, attempt);
        true
    }

    /// SIGTERM or SIGKILL; false when it does not run any more.
    pub(crate) fn signal_container(
        &mut self,
        worker: usize,
        attempt: AttemptId,
        kills: bool,
    ) -> bool {
        let engine = &mut self.engines[worker];
        let Some(container) = engine.containers.get(&attempt) else { return false };
        if !container.state.is_running() {
            return false;
        }
        let number = container.number;
        if kills || !Program::of(&container.spec).is_deaf {
            let after_ms = engine.random.u64(1..=if kills { 50 } else { 400 });
            let ends = Happening::ContainerEnds { worker, attempt, number, code: None };
            self.queue.after(after_ms, ends);
        }
        true
    }

    /// A container's process is over; without a code, by a signal.
    pub(crate) fn on_container_ends(
        &mut self,
        worker: usize,
        attempt: AttemptId,
        number: u64,
        code: Option<i32>,
    ) {
        let at = self.wall_of(worker);
        let Some(container) = self.engines[worker].containers.get_mut(&attempt) else { return };
        if container.number != number || !container.state.is_running() {
            return;
        }
        let shown = code.unwrap_or(137);
        container.state = ContainerState::Exited { code: shown, at };
        self.say_at(worker, format_args!("engine: {attempt} exited with {shown}"));
        if let Some(code) = code {
            self.oracle.truth.exited(attempt, code);
        }
        let answer_ms = self.engines[worker].draw_answer_ms();
        self.tell_run(worker, answer_ms, attempt, crate::life::Step::Exited);
    }

    pub(crate) fn remove_container(&mut self, worker: usize, attempt: AttemptId) {
        if self.engines[worker].containers.remove(&attempt).is_some() {
            self.say_at(worker, format_args!("engine: removed {attempt}"));
        }
    }

    /// Somebody removes one of the containers by hand; false when there is none.
    pub(crate) fn lose_container(&mut self, worker: usize) -> bool {
        let engine = &mut self.engines[worker];
        let attempts: Vec<AttemptId> = engine.containers.keys().copied().collect();
        let Some(attempt) = engine.random.choice(&attempts) else { return false };
        self.remove_container(worker, *attempt);
        let answer_ms = self.engines[worker].draw_answer_ms();
        self.tell_run(worker, answer_ms, *attempt, crate::life::Step::Exited);
        true
    }
}
