//! One run: the nodes, what happens next, and the judge. One thread, one virtual clock, and chance
//! from the seed alone. Read next: `scenario.rs` (what a seed chooses), `master.rs` and `worker.rs`
//! (the shells around the real cores), `oracle/` (what must hold).

use std::collections::BTreeMap;
use std::fmt;

use cloudai_master_core::{Answer, CancelTarget};
use cloudai_model::{AttemptId, Event};
use fastrand::Rng;

use crate::client::{Ask, CallId, Clients};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::engine::{Engine, EngineCall};
use crate::faults::{Class, Fault, FaultWhat};
use crate::history::History;
use crate::master::Master;
use crate::net::{Net, Orders, StreamId};
use crate::oracle::Oracle;
use crate::oracle::reference::{Place, Reference};
use crate::plant::Plant;
use crate::program::Program;
use crate::queue::Queue;
use crate::report::Report;
use crate::scenario::{LEASE_MS_LONGEST, Rates, STRETCH, Scenario};
use crate::worker::{Worker, WorkerWhat};

/// What everything may take after the world healed, beside the work itself, in milliseconds: the
/// longest lease with its margin, the longest backoff, and room.
const SETTLE_MS_MAX: u64 = 300_000 + LEASE_MS_LONGEST * STRETCH;
/// How often the world looks whether everything has ended, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// How often, after the world healed, what could never run is cancelled, in milliseconds: a client
/// may submit it only when its worker is there at last.
const CANCEL_AFTER_MS: u64 = 10_000;
/// Most things that happen in one run: beyond, something goes in a circle.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// Hellos of a hundred that come late where one of a dead process is to be seen.
const DEAD_HELLO_PERCENT: u8 = 60;

/// Something that happens at its time.
#[derive(Debug)]
pub(crate) enum Happening {
    MasterStarts,
    MasterResumes { life: u32 },
    MasterWakes { life: u32 },
    MasterReleases { life: u32 },
    MasterHears { stream: StreamId },
    MasterListens { stream: StreamId },
    WorkerStarts { worker: usize },
    WorkerResumes { worker: usize, life: u32 },
    WorkerHears { stream: StreamId },
    WorkerListens { stream: StreamId },
    Worker { worker: usize, life: u32, what: WorkerWhat },
    ContainerEnds { worker: usize, attempt: AttemptId, number: u64, code: Option<i32> },
    Engine { worker: usize, life: u32, attempt: AttemptId, call: EngineCall },
    EngineSweeps { worker: usize, attempt: AttemptId },
    CutEnds { worker: usize },
    StoreHasRoom,
    OrdersAgain { stream: StreamId, orders: Orders },
    Submits { plan: usize },
    Cancels { target: CancelTarget },
    CallArrives { call: CallId },
    CallAgain { call: CallId },
    CallGivenUp { call: CallId },
    AnswerArrives { call: CallId, answer: Option<Answer> },
    Fault(Fault),
    Heals,
    CancelsTheRest,
    Looks,
}

/// The whole simulated world.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) plant: Option<Plant>,
    pub(crate) rates: Rates,
    pub(crate) queue: Queue<Happening>,
    pub(crate) master_clock: Clock,
    pub(crate) master: Master,
    pub(crate) workers: Vec<Worker>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    pub(crate) oracle: Oracle,
    pub(crate) report: Report,
    pub(crate) history: History,
    pub(crate) failure: Option<String>,
    /// Everything has ended and nothing is left.
    is_over: bool,
    number: u64,
}

impl World {
    /// A world that is about to begin. `keeps_lines` keeps its history for people.
    pub(crate) fn new(scenario: Scenario, plant: Option<Plant>, keeps_lines: bool) -> Self {
        let seed = scenario.seed;
        let mut rates = scenario.rates;
        if plant == Some(Plant::DeadHello) {
            rates.late_hello_percent = DEAD_HELLO_PERCENT;
        }
        let random = |part: u64| Rng::with_seed(seed.rotate_left(17) ^ (part + 1) << 48 ^ part);
        let machines: BTreeMap<_, _> =
            scenario.workers.iter().map(|plan| (plan.id.clone(), plan.capacity)).collect();
        let count = scenario.workers.len();
        let name = format!("{seed}-{:?}", std::thread::current().id()).replace(['(', ')'], "");
        let disk = Disk::new(scenario.store, &name);
        let mut disk = disk.expect("a directory in memory can be made");
        disk.ignores_budgets = plant == Some(Plant::BudgetIgnored);
        let numbered = scenario.workers.iter().cloned().zip(100..);
        Self {
            plant,
            rates,
            queue: Queue::default(),
            master_clock: scenario.master_clock,
            master: Master::new(disk, random(1)),
            workers: numbered.map(|(plan, part)| Worker::new(plan, random(part))).collect(),
            engines: (0..count).map(|index| Engine::new(random(1_000 + index as u64))).collect(),
            net: Net::new(count, random(2)),
            clients: Clients::default(),
            oracle: Oracle::new(Reference::new(machines), count),
            report: Report::default(),
            history: History::new(keeps_lines),
            failure: None,
            is_over: false,
            number: 0,
            scenario,
        }
    }

    /// Runs to its end, or to the first thing that must not be.
    pub(crate) fn run(&mut self) {
        self.queue.at(0, Happening::MasterStarts);
        for (worker, it) in self.scenario.workers.iter().enumerate() {
            self.queue.at(it.starts_at_ms, Happening::WorkerStarts { worker });
        }
        for (plan, job) in self.scenario.jobs.iter().enumerate() {
            self.queue.at(job.at_ms, Happening::Submits { plan });
        }
        for fault in &self.scenario.faults {
            self.queue.at(fault.at_ms, Happening::Fault(*fault));
        }
        self.queue.at(self.scenario.heal_at_ms, Happening::Heals);
        if self.scenario.workers.iter().any(|plan| plan.clock.drift_ppm != 0) {
            self.report.count(Class::ClockDrift);
        }
        while self.failure.is_none() && !self.is_over {
            let Some(what) = self.queue.next() else { break };
            self.report.happenings += 1;
            if self.report.happenings > HAPPENINGS_MAX {
                self.fail(format!("a run ends: this one had {HAPPENINGS_MAX} things happen"));
            }
            self.happen(what);
        }
        self.report.virtual_ms = self.queue.now_ms();
    }

    /// Something happens, unless it happens to a node that stands still.
    pub(crate) fn happen(&mut self, what: Happening) {
        let what = match &what {
            Happening::MasterWakes { .. }
            | Happening::MasterReleases { .. }
            | Happening::MasterHears { .. }
            | Happening::MasterListens { .. }
            | Happening::OrdersAgain { .. }
            | Happening::CallArrives { .. } => self.stash_of_master(what),
            Happening::Worker { worker, .. } => self.stash_of_worker(*worker, what),
            Happening::WorkerHears { stream } | Happening::WorkerListens { stream } => {
                self.stash_of_worker(self.net.streams[stream.0].worker, what)
            }
            _ => Some(what),
        };
        if let Some(what) = what {
            self.handle(what);
        }
    }

    fn handle(&mut self, what: Happening) {
        match what {
            Happening::MasterStarts => self.on_master_starts(),
            Happening::MasterResumes { life } => self.on_master_resumes(life),
            Happening::MasterWakes { life } => self.on_master_wakes(life),
            Happening::MasterReleases { life } => self.on_master_releases(life),
            Happening::MasterHears { stream } => self.on_master_hears(stream),
            Happening::MasterListens { stream } => self.on_master_listens(stream),
            Happening::WorkerStarts { worker } => self.on_worker_starts(worker),
            Happening::WorkerResumes { worker, life } => self.on_worker_resumes(worker, life),
            Happening::WorkerHears { stream } => self.on_worker_hears(stream),
            Happening::WorkerListens { stream } => self.on_worker_listens(stream),
            Happening::Worker { worker, life, what } => self.on_worker(worker, life, what),
            Happening::ContainerEnds { worker, attempt, number, code } => {
                self.on_container_ends(worker, attempt, number, code);
            }
            Happening::Engine { worker, life, attempt, call } => {
                self.on_engine(worker, life, attempt, call);
            }
            Happening::EngineSweeps { worker, attempt } => self.sweep(worker, attempt),
            Happening::CutEnds { worker } => self.on_cut_ends(worker),
            Happening::OrdersAgain { stream, orders } => self.on_orders_again(stream, orders),
            Happening::StoreHasRoom => self.on_store_has_room(),
            Happening::Submits { plan } => self.call(Ask::Submit(plan)),
            Happening::Cancels { target } => self.call(Ask::Cancel(target)),
            Happening::CallArrives { call } => self.on_call_arrives(call),
            Happening::CallAgain { call } => self.send_call(call),
            Happening::CallGivenUp { call } => self.on_call_given_up(call),
            Happening::AnswerArrives { call, answer } => self.on_answer_arrives(call, answer),
            Happening::Fault(fault) => self.go_wrong(fault.what),
            Happening::Heals => self.heal(),
            Happening::CancelsTheRest => {
                self.cancel_what_never_fits();
                self.queue.after(CANCEL_AFTER_MS, Happening::CancelsTheRest);
            }
            Happening::Looks => self.look(),
        }
    }

    fn go_wrong(&mut self, what: FaultWhat) {
        if self.queue.now_ms() >= self.scenario.heal_at_ms {
            return;
        }
        self.say(format_args!("fault: {what:?}"));
        let class = what.class();
        let happened = match what {
            FaultWhat::MasterDies { point, down_ms } => {
                // Those at a point of a turn are counted when they come to it.
                self.doom_master(point, down_ms) && class == Class::MasterDies
            }
            FaultWhat::MasterPauses { ms } => self.pause_master(ms),
            FaultWhat::StoreFails { is_stored } => {
                self.master.disk.fails = Some(is_stored);
                false
            }
            FaultWhat::StoreFull { ms } => {
                self.fill_store(ms);
                false
            }
            FaultWhat::WorkerDies { worker, point, down_ms } => {
                self.doom_worker(worker, point, down_ms)
            }
            FaultWhat::WorkerPauses { worker, ms } => self.pause_worker(worker, ms),
            FaultWhat::WorkerLeaves { worker, down_ms } => self.leave_worker(worker, down_ms),
            FaultWhat::Cut { worker, way, ms } => {
                self.cut(worker, way, ms);
                true
            }
            FaultWhat::StreamBreaks { worker } => {
                self.break_streams(worker);
                true
            }
            FaultWhat::EngineHangs { worker, ms } => {
                self.hang_engine(worker, ms);
                true
            }
            FaultWhat::EngineLoses { worker } => self.lose_container(worker),
            FaultWhat::WallJumps { worker, by_ms } => {
                let clock = match worker {
                    Some(worker) => &mut self.workers[worker].plan.clock,
                    None => &mut self.master_clock,
                };
                clock.wall_error_ms += by_ms;
                true
            }
        };
        if happened {
            self.report.count(class);
        }
    }

    /// From here on nothing goes wrong any more.
    fn heal(&mut self) {
        self.say(format_args!("the world heals"));
        self.rates = Rates { delay_ms_max: self.rates.delay_ms_max.min(20), ..Rates::default() };
        self.mend_network();
        self.mend_engines();
        self.spare_master();
        if let Some(life) = self.master.life_up() {
            self.on_master_resumes(life);
        }
        self.queue.after(1_000, Happening::MasterStarts);
        for worker in 0..self.workers.len() {
            self.workers[worker].doomed = None;
            if let Some(life) = self.workers[worker].life_up() {
                self.on_worker_resumes(worker, life);
            }
            self.queue.after(1_000, Happening::WorkerStarts { worker });
        }
        self.queue.after(CANCEL_AFTER_MS, Happening::CancelsTheRest);
        self.queue.after(CANCEL_AFTER_MS + LOOK_MS, Happening::Looks);
    }

    /// How long everything may take after the world healed, in milliseconds: all the work one after
    /// the other, as often as it may be tried, and the time to settle.
    fn bound_ms(&self) -> u64 {
        let work = self.scenario.jobs.iter().map(|job| {
            let run_ms = Program::of(&job.spec).most_ms + job.spec.limits.grace_ms + 2_000;
            run_ms * (u64::from(job.spec.retry.retries_max) + 1) * job.shape.task_count()
        });
        SETTLE_MS_MAX + work.sum::<u64>()
    }

    /// Whether everything has ended and nothing is left.
    fn look(&mut self) {
        let Some(left) = self.find_left() else {
            self.is_over = true;
            return;
        };
        let since_ms = self.queue.now_ms() - self.scenario.heal_at_ms;
        if since_ms > self.bound_ms() {
            self.fail(format!(
                "when the world has healed everything ends: after {} s there is left: {left}",
                since_ms / 1_000
            ));
        }
        self.queue.after(LOOK_MS, Happening::Looks);
    }

    /// The first thing that is not over, in words.
    fn find_left(&self) -> Option<String> {
        let late = |plan: &crate::scenario::JobPlan| plan.at_ms > self.queue.now_ms();
        if self.scenario.jobs.iter().any(late) || !self.clients.are_content() {
            return Some("a client that waits for an answer".to_owned());
        }
        let Some(process) = self.master.process.as_ref() else {
            return Some("no master".to_owned());
        };
        for (id, job) in &self.oracle.reference.jobs {
            for (position, task) in &job.tasks {
                if !matches!(task.place, Place::Ended(_)) {
                    let task_id = job.shape.task_id(*id, *position);
                    let reason =
                        process.core.explain(task_id).map(|reason| reason.wait.to_string());
                    let reason = reason.unwrap_or_default();
                    return Some(format!("{task_id} ({:?}; {reason})", task.place));
                }
            }
        }
        if let Some(job) = process.core.facts().snapshot().jobs.keys().next() {
            return Some(format!("{job} in the master's memory"));
        }
        for (worker, engine) in self.workers.iter().zip(&self.engines) {
            let id = &worker.plan.id;
            if let Some(attempt) = engine.containers.keys().next() {
                return Some(format!("the container of {attempt} on {id}"));
            }
            if let Some(attempt) = worker.disk.records.keys().next() {
                return Some(format!("the record of {attempt} on {id}"));
            }
            let Some(process) = worker.process.as_ref() else {
                return Some(format!("{id}, which does not run"));
            };
            let (held, runs) = (process.ledger.held_count(), process.runs.len());
            if held + runs > 0 {
                return Some(format!("{held} attempts in the ledger of {id}, {runs} in its hands"));
            }
        }
        None
    }

    pub(crate) fn draw_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The first thing that must not be ends the run.
    pub(crate) fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.say(format_args!("VIOLATED: {why}"));
            self.failure = Some(why);
        }
    }

    pub(crate) fn say(&mut self, what: fmt::Arguments<'_>) {
        self.history.say(self.queue.now_ms(), what);
    }

    pub(crate) fn say_at(&mut self, worker: usize, what: fmt::Arguments<'_>) {
        let id = &self.workers[worker].plan.id;
        self.history.say(self.queue.now_ms(), format_args!("{id}: {what}"));
    }

    pub(crate) fn say_event(&mut self, event: &Event) {
        self.report.events += 1;
        self.history.say_event(self.queue.now_ms(), event);
    }
}
