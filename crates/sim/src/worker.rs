//! A worker's shell around the real ledger, as `worker/src/session.rs` is one: what comes in is
//! an input, effects are carried out, and a session with the master is kept for ever. It decides
//! nothing about attempts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cloudai_model::{AttemptId, AttemptReport, Cause, Outcome, ReportWhat, Session, Timestamp};
use cloudai_worker_core::{Effect, Input, Ledger, RefusalReason};
use fastrand::Rng;

use crate::adopt::RESTART_MS;
use crate::faults::{Class, WorkerPoint};
use crate::life::{Run, Step};
use crate::net::{Down, Orders, Refusal, StreamId, Up};
use crate::plant::Plant;
use crate::records::{LeaseKeeper, WorkerDisk};
use crate::scenario::WorkerPlan;
use crate::world::{Happening, World};

/// How long a master may take to welcome a hello, in milliseconds.
const WELCOME_MS_MAX: u64 = 5_000;
/// How long a hello that is given up may still be under way, in milliseconds.
const LATE_HELLO_MS_MAX: u64 = 20_000;
/// How often everything that is held is reported, in milliseconds.
const HEARTBEAT_MS: u64 = 5_000;
/// First and longest pause between two tries to connect, before jitter, in milliseconds.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_500;
/// How long after the master's word the files of an attempt are removed, in milliseconds.
const REMOVE_MS: u64 = 2;
/// A machine with its worker process, when that runs.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) plan: WorkerPlan,
    /// Counts the processes.
    pub(crate) life: u32,
    pub(crate) process: Option<Process>,
    /// When the process stood still last, and went on again.
    pub(crate) resumed_at_ms: u64,
    /// What happened while the process stands still.
    pub(crate) stash: Option<Vec<Happening>>,
    /// What survives the process.
    pub(crate) disk: WorkerDisk,
    /// Where on an attempt's way the process dies next, and for how long.
    pub(crate) doomed: Option<(WorkerPoint, u64)>,
    pub(crate) random: Rng,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) ledger: Ledger,
    pub(crate) runs: BTreeMap<AttemptId, Run>,
    connection: Connection,
    /// What it answers to the challenge of the stream that opens.
    hello: Option<Up>,
    pause_ms: u64,
    notes: VecDeque<AttemptReport>,
    full_due: bool,
    /// Whether a report is about to be sent.
    is_sending: bool,
    /// When the next look at the leases is planned.
    tick_at_ms: Option<u64>,
    /// It ends when nothing runs any more; then it stays away for so long.
    leaving_for_ms: Option<u64>,
    /// Whether a master ever welcomed it: nothing of an attempt is delivered before.
    pub(crate) is_welcomed: bool,
    pub(crate) keeper: LeaseKeeper,
}

impl Process {
    /// A process that is about to connect.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            runs: BTreeMap::new(),
            connection: Connection::Waiting,
            hello: None,
            pause_ms: PAUSE_MS_MIN,
            notes: VecDeque::new(),
            full_due: false,
            is_sending: false,
            tick_at_ms: None,
            leaving_for_ms: None,
            is_welcomed: false,
            keeper: LeaseKeeper::default(),
        }
    }
}

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Waiting,
    Opening { stream: StreamId, hello_at_ms: u64 },
    Open(StreamId),
}

/// What happens within a worker process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WorkerWhat {
    Connect,
    WelcomeOverdue(StreamId),
    Heartbeat(StreamId),
    Send,
    Tick,
    KeepLease,
    RemoveRecord(AttemptId),
    Run { attempt: AttemptId, step: Step },
}

impl Worker {
    pub(crate) fn new(plan: WorkerPlan, random: Rng) -> Self {
        Self {
            plan,
            life: 0,
            process: None,
            resumed_at_ms: 0,
            stash: None,
            disk: WorkerDisk::default(),
            doomed: None,
            random,
        }
    }

    /// Which process runs.
    pub(crate) fn life_up(&self) -> Option<u32> {
        self.process.as_ref().map(|_| self.life)
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.stash.is_some()
    }
}

impl World {
    pub(crate) fn wall_of(&self, worker: usize) -> Timestamp {
        self.workers[worker].plan.clock.wall(self.queue.now_ms())
    }

    pub(crate) fn session_of(&self, worker: usize) -> Session {
        let process = self.workers[worker].process.as_ref();
        process.and_then(|process| process.ledger.session()).unwrap_or_default()
    }

    /// Keeps what happens to a paused worker for later; gives back what is to be done now.
    pub(crate) fn stash_of_worker(&mut self, worker: usize, what: Happening) -> Option<Happening> {
        match &mut self.workers[worker].stash {
            None => Some(what),
            Some(stash) => {
                stash.push(what);
                None
            }
        }
    }

    pub(crate) fn pause_worker(&mut self, worker: usize, ms: u64) -> bool {
        let it = &mut self.workers[worker];
        if it.process.is_none() || it.stash.is_some() {
            return false;
        }
        it.stash = Some(Vec::new());
        let life = it.life;
        self.queue.after(ms, Happening::WorkerResumes { worker, life });
        true
    }

    /// The process goes on: it meets everything that waited, in order, the leases at any point.
    pub(crate) fn on_worker_resumes(&mut self, worker: usize, life: u32) {
        if self.workers[worker].life != life {
            return;
        }
        let Some(mut stash) = self.workers[worker].stash.take() else { return };
        self.workers[worker].resumed_at_ms = self.queue.now_ms();
        self.say_at(worker, format_args!("goes on"));
        let place = self.workers[worker].random.usize(0..=stash.len());
        let what = WorkerWhat::Tick;
        stash.insert(place, Happening::Worker { worker, life, what });
        for what in stash {
            self.happen(what);
        }
    }

    /// The process begins to end in good order.
    pub(crate) fn leave_worker(&mut self, worker: usize, down_ms: u64) -> bool {
        let Some(process) = self.workers[worker].process.as_mut() else { return false };
        if process.leaving_for_ms.is_some() {
            return false;
        }
        process.leaving_for_ms = Some(down_ms);
        self.step_ledger(worker, Input::ShutDown);
        // Those that a lease or a cancel has not stopped yet.
        let Some(process) = self.workers[worker].process.as_ref() else { return true };
        let runs: Vec<_> = process.runs.iter().map(|(id, run)| (*id, run.spec.clone())).collect();
        for (attempt, spec) in runs {
            self.stop_run(worker, attempt, Cause::WorkerLost, spec.limits.grace_ms);
        }
        self.end_if_left(worker);
        true
    }

    /// The last thing of a process that leaves: goodbye, when there is a session to say it over.
    fn end_if_left(&mut self, worker: usize) {
        let Some(process) = self.workers[worker].process.as_ref() else { return };
        let Some(down_ms) = process.leaving_for_ms else { return };
        if process.ledger.live_count() > 0 {
            return;
        }
        if let Connection::Open(stream) = process.connection {
            self.say_at(worker, format_args!("says goodbye"));
            self.send_up(stream, Up::Goodbye);
        }
        self.kill_worker(worker, down_ms);
    }

    pub(crate) fn plan_worker(&mut self, worker: usize, ms: u64, what: WorkerWhat) {
        let life = self.workers[worker].life;
        self.queue.after(ms, Happening::Worker { worker, life, what });
    }

    pub(crate) fn on_worker(&mut self, worker: usize, life: u32, what: WorkerWhat) {
        if self.workers[worker].life_up() != Some(life) {
            return;
        }
        match what {
            WorkerWhat::Connect => self.connect(worker),
            WorkerWhat::WelcomeOverdue(stream) => self.on_welcome_overdue(worker, stream),
            WorkerWhat::Heartbeat(stream) => self.on_heartbeat(worker, stream),
            WorkerWhat::Send => self.send_report(worker),
            WorkerWhat::Tick => self.on_tick(worker),
            WorkerWhat::KeepLease => self.keep_lease(worker),
            WorkerWhat::RemoveRecord(attempt) => self.remove_record(worker, attempt),
            WorkerWhat::Run { attempt, step } => self.on_run(worker, attempt, step),
        }
        self.judge_claims(worker);
        self.settle_worker(worker);
    }

    /// What the loop of the shell looks at between two things that happen.
    fn settle_worker(&mut self, worker: usize) {
        self.end_if_left(worker);
        self.keep_lease_soon(worker);
        let now_ms = self.queue.now_ms();
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        let wants_to_send =
            process.full_due || process.ledger.has_news() || !process.notes.is_empty();
        let is_open = matches!(process.connection, Connection::Open(_));
        let sends = is_open && wants_to_send && !process.is_sending;
        process.is_sending |= sends;
        let deadline = process.ledger.next_deadline();
        let tick_at_ms = deadline.map(|at| it.plan.clock.true_ms(at).max(now_ms));
        let looks = self.plant != Some(Plant::LeaseIgnored);
        let ticks = looks && tick_at_ms.is_some() && tick_at_ms != process.tick_at_ms;
        if ticks {
            process.tick_at_ms = tick_at_ms;
        }
        let send_ms = it.random.u64(0..=2);
        if sends {
            self.plan_worker(worker, send_ms, WorkerWhat::Send);
        }
        if let (true, Some(at_ms)) = (ticks, tick_at_ms) {
            self.plan_worker(worker, at_ms - now_ms, WorkerWhat::Tick);
        }
    }

    fn on_tick(&mut self, worker: usize) {
        if let Some(process) = self.workers[worker].process.as_mut() {
            process.tick_at_ms = None;
        }
        self.step_ledger(worker, Input::Tick);
    }

    fn connect(&mut self, worker: usize) {
        let now_ms = self.queue.now_ms();
        let Some(process) = self.workers[worker].process.as_mut() else { return };
        if process.connection != Connection::Waiting {
            return;
        }
        let held = process.ledger.begin_stream();
        let session = process.ledger.session();
        self.oracle.leases.stream_begins(worker);
        let degraded = self.find_degraded(worker);
        let Some(stream) = self.open_stream(worker) else {
            self.wait_to_connect(worker);
            return;
        };
        let count = held.len();
        if let Some(process) = self.workers[worker].process.as_mut() {
            process.connection = Connection::Opening { stream, hello_at_ms: now_ms };
            process.hello = Some(Up::Hello { session, held, degraded });
        }
        self.say_at(worker, format_args!("opens stream {}: {session:?}, holds {count}", stream.0));
        self.plan_worker(worker, WELCOME_MS_MAX, WorkerWhat::WelcomeOverdue(stream));
    }

    fn on_challenge(&mut self, worker: usize, id: StreamId) {
        let Some(process) = self.workers[worker].process.as_mut() else { return };
        if !matches!(process.connection, Connection::Opening { stream, .. } if stream == id) {
            return;
        }
        let Some(hello) = process.hello.take() else { return };
        self.say_at(worker, format_args!("hello on stream {}", id.0));
        let random = &mut self.workers[worker].random;
        if random.u8(0..100) >= self.rates.late_hello_percent {
            return self.send_up(id, hello);
        }
        self.report.count(Class::HelloLate);
        self.net.slow_down(id, self.queue.now_ms() + random.u64(0..=LATE_HELLO_MS_MAX));
        self.send_up(id, hello);
        self.close_at_worker(id);
        self.on_stream_lost(worker, id);
    }

    fn wait_to_connect(&mut self, worker: usize) {
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        process.connection = Connection::Waiting;
        let pause_ms = process.pause_ms + it.random.u64(0..=process.pause_ms);
        process.pause_ms = (process.pause_ms * 2).min(PAUSE_MS_MAX);
        self.plan_worker(worker, pause_ms, WorkerWhat::Connect);
    }

    fn on_welcome_overdue(&mut self, worker: usize, overdue: StreamId) {
        let Some(process) = self.workers[worker].process.as_ref() else { return };
        if matches!(process.connection, Connection::Opening { stream, .. } if stream == overdue) {
            self.close_at_worker(overdue);
            self.wait_to_connect(worker);
        }
    }

    fn on_heartbeat(&mut self, worker: usize, stream: StreamId) {
        let Some(process) = self.workers[worker].process.as_mut() else { return };
        if process.connection == Connection::Open(stream) {
            process.full_due = true;
            self.plan_worker(worker, HEARTBEAT_MS, WorkerWhat::Heartbeat(stream));
        }
    }

    /// Why the machine should get no new work.
    fn find_degraded(&self, worker: usize) -> Option<String> {
        let hangs = self.find_engine_wait(worker).is_some();
        hangs.then(|| "its engine does not answer".to_owned())
    }

    fn send_report(&mut self, worker: usize) {
        let degraded = self.find_degraded(worker);
        let now_ms = self.queue.now_ms();
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        process.is_sending = false;
        let Connection::Open(stream) = process.connection else { return };
        let full = std::mem::take(&mut process.full_due);
        let outgoing = process.ledger.take_report(it.plan.clock.mono(now_ms), full);
        let changes: Vec<_> = process.notes.drain(..).chain(outgoing.changes).collect();
        let (sequence, full) = (outgoing.sequence, outgoing.full);
        self.oracle.leases.sent(worker, sequence, now_ms);
        let is_end = |change: &&AttemptReport| matches!(change.what, ReportWhat::Ended { .. });
        let ends: Vec<AttemptReport> = changes.iter().filter(is_end).cloned().collect();
        if !ends.is_empty()
            && self.draw_doubled()
            && let Some(process) = self.workers[worker].process.as_mut()
        {
            process.notes.extend(ends);
        }
        self.send_up(stream, Up::Report { sequence, changes, full, degraded });
    }

    /// The connection is gone, as the worker sees it.
    pub(crate) fn on_stream_lost(&mut self, worker: usize, lost: StreamId) {
        let Some(process) = self.workers[worker].process.as_ref() else { return };
        let is_it = match process.connection {
            Connection::Waiting => false,
            Connection::Opening { stream, .. } | Connection::Open(stream) => stream == lost,
        };
        if is_it {
            self.say_at(worker, format_args!("lost stream {}", lost.0));
            self.wait_to_connect(worker);
        }
    }

    /// Something comes down a stream, unless its process or its end is gone.
    pub(crate) fn on_worker_hears(&mut self, id: StreamId) {
        let Some(message) = self.arrive_down(id) else { return };
        let stream = &self.net.streams[id.0];
        let (worker, life) = (stream.worker, stream.worker_life);
        if !stream.is_open_at_worker || self.workers[worker].life_up() != Some(life) {
            return;
        }
        match message {
            Down::Challenge => self.on_challenge(worker, id),
            Down::Welcome(session) => self.on_welcome(worker, id, session),
            Down::Orders(orders) => self.on_orders(worker, orders),
            Down::Refused(refusal) => self.on_refused(worker, id, refusal),
            Down::End => {
                self.close_at_worker(id);
                self.on_stream_lost(worker, id);
            }
        }
        self.settle_worker(worker);
    }

    fn on_welcome(&mut self, worker: usize, id: StreamId, session: Session) {
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        let Connection::Opening { stream, hello_at_ms } = process.connection else { return };
        if stream != id {
            return;
        }
        process.connection = Connection::Open(stream);
        process.is_welcomed = true;
        process.pause_ms = PAUSE_MS_MIN;
        let from_answer = self.plant == Some(Plant::LeaseFromAnswer);
        let counted_ms = if from_answer { self.queue.now_ms() } else { hello_at_ms };
        let hello_sent_at = it.plan.clock.mono(counted_ms);
        self.oracle.leases.renewed(worker, hello_at_ms);
        self.say_at(worker, format_args!("welcome: {session}"));
        self.step_ledger(worker, Input::Welcomed { session, hello_sent_at });
        self.plan_worker(worker, 0, WorkerWhat::Heartbeat(id));
    }

    fn on_refused(&mut self, worker: usize, id: StreamId, refusal: Refusal) {
        self.say_at(worker, format_args!("refused: {refusal:?}"));
        self.close_at_worker(id);
        self.on_stream_lost(worker, id);
        match refusal {
            Refusal::Unknown => self.step_ledger(worker, Input::SessionUnknown),
            // The process ends; whoever looks after the machine starts another.
            Refusal::Superseded => drop(self.leave_worker(worker, RESTART_MS)),
            Refusal::Invalid => {}
        }
    }

    fn on_orders(&mut self, worker: usize, orders: Orders) {
        if orders.acknowledged > 0 {
            let sequence = orders.acknowledged;
            self.oracle.leases.acknowledged(worker, sequence);
            self.step_ledger(worker, Input::Acknowledged { sequence });
            if self.plant == Some(Plant::LeaseFromAnswer) {
                let session = self.session_of(worker);
                let plan = &self.workers[worker].plan;
                let hello_sent_at = plan.clock.mono(self.queue.now_ms());
                self.step_ledger(worker, Input::Welcomed { session, hello_sent_at });
            }
        }
        for attempt in orders.forget {
            self.say_at(worker, format_args!("ordered: forget {attempt}"));
            self.step_ledger(worker, Input::Forget { attempt });
        }
        for (attempt, reason) in orders.stop {
            self.say_at(worker, format_args!("ordered: stop {attempt} ({reason:?})"));
            self.step_ledger(worker, Input::Stop { attempt, reason });
        }
        for (attempt, spec) in orders.assign {
            self.say_at(worker, format_args!("ordered: assign {attempt}"));
            let held = self.holds(worker, attempt);
            if held && self.plant == Some(Plant::DoubleStart) {
                self.begin_run(worker, attempt, Arc::clone(&spec));
            }
            self.step_ledger(worker, Input::Assign { attempt, spec });
        }
    }

    fn holds(&self, worker: usize, attempt: AttemptId) -> bool {
        let process = self.workers[worker].process.as_ref();
        process.is_some_and(|process| process.runs.contains_key(&attempt))
    }

    /// Gives an input to the ledger and carries out what comes of it.
    pub(crate) fn step_ledger(&mut self, worker: usize, input: Input) {
        let now_ms = self.queue.now_ms();
        let it = &mut self.workers[worker];
        let Some(process) = it.process.as_mut() else { return };
        let mut effects = Vec::new();
        process.ledger.step(it.plan.clock.mono(now_ms), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Start { attempt, spec } => self.begin_run(worker, attempt, spec),
                Effect::Stop { attempt, cause, grace_ms } => {
                    self.say_at(worker, format_args!("stops {attempt}: {cause}"));
                    self.stop_run(worker, attempt, cause, grace_ms);
                }
                Effect::Drop { attempt } => {
                    if let Some(process) = self.workers[worker].process.as_mut() {
                        process.runs.remove(&attempt);
                    }
                    self.plan_worker(worker, REMOVE_MS, WorkerWhat::RemoveRecord(attempt));
                }
                Effect::Refuse { attempt, reason } => self.refuse(worker, attempt, reason),
            }
        }
    }

    fn refuse(&mut self, worker: usize, attempt: AttemptId, reason: RefusalReason) {
        self.say_at(worker, format_args!("refuses {attempt}: {reason:?}"));
        let cause = match reason {
            RefusalReason::Outdated | RefusalReason::Full => Cause::Infra,
            RefusalReason::ShuttingDown => Cause::WorkerLost,
        };
        let outcome = Outcome::new(cause, format!("refused: {reason:?}"));
        let at = self.wall_of(worker);
        let what = ReportWhat::Ended { started_at: None, outcome, at };
        if let Some(process) = self.workers[worker].process.as_mut() {
            process.notes.push_back(AttemptReport { attempt, what });
        }
    }
}
