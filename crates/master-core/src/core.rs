//! The frame: one entry for commands, one for plans, one next deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_model::{
    AttemptId, Event, LiveState, LiveTask, Monotonic, Now, Session, Snapshot, TaskId, WorkerId,
};
use cloudai_scheduler::{Demand, Offer, Plan, Problem, Standing};

use crate::batch::{Batch, Effect, Order};
use crate::command::{Answer, Command, Input, StreamNo};
use crate::facts::{Facts, RestoreError, WorkerFacts};
use crate::liveness::{Alarm, Alarms, Liveness};
use crate::pace::Pace;
use crate::steps;

/// The bounds of the core. Each has a test at the bound.
pub mod bounds {
    /// Most live jobs.
    pub const LIVE_JOBS_MAX: usize = 1_000_000;
    /// Jobs that a master makes at once after its start, before its time is worth more: what the
    /// hundredth of a second is worth that a start takes at least.
    pub const JOBS_AT_START: u64 = cloudai_model::JOBS_PER_SECOND_MAX / 100;
    /// Most workers ever registered.
    pub const WORKERS_MAX: usize = 10_000;
    /// Most attempts that one worker holds.
    pub const ATTEMPTS_PER_WORKER_MAX: usize = 4_096;
    /// Silence after which a worker takes no more work, in milliseconds.
    pub const INACTIVE_AFTER_MS: u64 = 14_000;
    /// How long after a lease's end the master waits at least before it places the task again, in
    /// milliseconds: a stop takes its time, and clocks differ; see [`lease_margin_ms`].
    pub const LEASE_MARGIN_MS: u64 = 3_000;
    /// The part of a lease by which the clocks of master and worker may differ at its end, beyond
    /// what the margin itself allows: a thousandth, ten times what a free-running quartz does.
    pub const LEASE_DRIFT_PART: u64 = 1_000;

    /// The margin after a lease of this length, in milliseconds: clocks drift the further apart the
    /// longer it is.
    pub const fn lease_margin_ms(lease_ms: u64) -> u64 {
        LEASE_MARGIN_MS + lease_ms / LEASE_DRIFT_PART
    }

    /// How often a task may be lost to engines, disks, or workers before it started, until that is
    /// its outcome.
    pub const INFRA_LOSSES_MAX: u32 = 16;
    /// Full reports in a row without a task that runs on a unary worker, until it counts as lost.
    pub const MISSED_REPORTS_MAX: u8 = 3;
    /// How long a worker that is heard may not name an attempt that it is given again with each
    /// full report, in milliseconds; then it counts as one that does not take it.
    pub const UNTAKEN_MS_MAX: u64 = 60_000;
    /// How long after the last time that it was given such an attempt is only taken back, and one
    /// that was cancelled only stopped, in milliseconds: an order may be on its way for as long as
    /// a silent connection stands.
    pub const UNTAKEN_QUIET_MS: u64 = 30_000;
    /// Wait before a lost or failed task is tried again the first time, in milliseconds; it
    /// doubles each time.
    pub const BACKOFF_MS_MIN: u64 = 500;
    /// Longest such wait, in milliseconds.
    pub const BACKOFF_MS_MAX: u64 = 60_000;
    /// Failures in a row, without a success between, after which a worker is put aside.
    pub const BREAKER_FAILURES: u32 = 5;
    /// How long a worker is put aside the first time, in milliseconds; it doubles each time.
    pub const BREAKER_MS_MIN: u64 = 30_000;
    /// Longest time for which a worker is put aside, in milliseconds.
    pub const BREAKER_MS_MAX: u64 = 600_000;
    /// How long a trial is waited for that neither runs for a while nor ends, in milliseconds: it
    /// may pull an image for hours.
    pub const TRIAL_MS_MAX: u64 = 30_000;
    /// A task that fails within this time of its start may have failed for its worker's sake, in
    /// milliseconds.
    pub const QUICK_EXIT_MS: u64 = 2_000;
    /// How much longer than its worker says a task may have run by the master's clock, which also
    /// counts the way of its end, until what its worker says is not believed, in milliseconds.
    pub const QUICK_EXIT_DOUBT_MS: u64 = 30_000;
    /// From how many jobs such failures must come to be laid to the worker.
    pub const QUICK_EXIT_JOBS: usize = 3;
    /// Most placements that one plan or proposal makes; what is left waits for the next one.
    pub const PLACEMENTS_PER_PLAN_MAX: u64 = 4_096;
}

/// What can be set. The defaults are the design's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// See [`bounds::LIVE_JOBS_MAX`].
    pub live_jobs_max: usize,
    /// See [`bounds::WORKERS_MAX`].
    pub workers_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { live_jobs_max: bounds::LIVE_JOBS_MAX, workers_max: bounds::WORKERS_MAX }
    }
}

/// The master's mind: facts, and what is only known in this run.
#[derive(Debug)]
pub struct Core {
    pub(crate) facts: Facts,
    pub(crate) settings: Settings,
    pub(crate) liveness: BTreeMap<WorkerId, Liveness>,
    pub(crate) alarms: Alarms,
    /// The last moment that this core was told of.
    pub(crate) told_at: Monotonic,
    /// Something changed that a plan might use.
    pub(crate) plan_wanted: bool,
    /// Reports that the fence refused, in this run.
    pub(crate) stale_reports: u64,
    /// The stream of the last hello that was taken from each worker. No stream outlives the master
    /// process, so there is nothing to store.
    pub(crate) hellos: BTreeMap<WorkerId, StreamNo>,
    pub(crate) pace: Pace,
    /// Where tasks that wait were lost last by no fault of their own: it is better to try them
    /// elsewhere. Not durable: it is a wish, and nothing waits for it.
    pub(crate) lost_on: BTreeMap<TaskId, WorkerId>,
    /// See [`Core::set_store_full`].
    pub(crate) store_full: bool,
}

impl Core {
    /// Takes up where the store says that the last run ended. Every worker gets one fresh lease,
    /// and what waits for another try waits a moment more.
    pub fn restore(snapshot: Snapshot, settings: Settings, now: Now) -> Result<Self, RestoreError> {
        let facts = Facts::restore(snapshot)?;
        let mut core = Self {
            facts,
            settings,
            liveness: BTreeMap::new(),
            alarms: Alarms::default(),
            told_at: now.mono,
            plan_wanted: true,
            stale_reports: 0,
            hellos: BTreeMap::new(),
            pace: Pace::new(now.mono),
            lost_on: BTreeMap::new(),
            store_full: false,
        };
        let workers: Vec<WorkerId> = core.facts.workers.keys().cloned().collect();
        for worker in workers {
            let fresh = Liveness { heard_at: now.mono, ..Liveness::default() };
            core.liveness.insert(worker.clone(), fresh);
            let at = now.mono.plus_ms(bounds::INACTIVE_AFTER_MS);
            core.alarms.set(at, Alarm::Worker(worker));
        }
        core.delay_tried(now.mono.plus_ms(bounds::BACKOFF_MS_MIN));
        Ok(core)
    }

    /// What was tried before waits a moment, however often the master is started: a restore counts
    /// on it (`crates/model/src/numbers.rs`).
    fn delay_tried(&mut self, until: Monotonic) {
        let Facts { jobs, queue, .. } = &mut self.facts;
        for (id, job) in &*jobs {
            let tried = job.live.iter().filter(|(_, live)| live.find_hold().is_none());
            for (position, _) in tried {
                queue.delay(job, *position);
                self.alarms.set(until, Alarm::Backoff(job.shape.task_id(*id, *position)));
            }
        }
    }

    /// Takes up where the store says that it stands, after it did not keep a turn. What was heard
    /// of the workers was heard all the same: nobody's lease begins anew, and the connections with
    /// the order of their hellos outlive that turn. So does what was thought of them, as far as it
    /// is about attempts that the store has. What was due in that turn may have been acted on:
    /// every alarm is set anew, and everybody is looked at again at once.
    pub fn reload(&self, snapshot: Snapshot, now: Now) -> Result<Self, RestoreError> {
        let mut core = Self::restore(snapshot, self.settings, now)?;
        core.hellos.clone_from(&self.hellos);
        core.pace = self.pace;
        core.stale_reports = self.stale_reports;
        core.lost_on.clone_from(&self.lost_on);
        let waits = |live: &LiveTask| live.find_hold().is_none();
        core.lost_on.retain(|task, _| core.facts.find_live(*task).is_some_and(waits));
        core.alarms = core.alarms.put_off(&self.alarms);
        for (worker, known) in &self.liveness {
            if core.facts.workers.contains_key(worker) {
                core.take_over(now, worker, known, self.told_at);
            }
        }
        Ok(core)
    }

    /// Goes on with what was known of a worker in the turn at `turn`, which was not kept.
    fn take_over(&mut self, now: Now, worker: &WorkerId, known: &Liveness, turn: Monotonic) {
        let held: BTreeSet<AttemptId> = steps::held_by(self, worker).into_iter().collect();
        let mut liveness = known.clone();
        liveness.missed.retain(|attempt, _| held.contains(attempt));
        liveness.heard_running.retain(|attempt, _| held.contains(attempt));
        liveness.breaker.take_back(turn, &held);
        if let Some(at) = liveness.breaker.next_look() {
            self.alarms.set(at, Alarm::Breaker(worker.clone()));
        }
        // Whether a trial runs for a while is looked at a little later than it would have been.
        let looked_at = now.mono.plus_ms(bounds::QUICK_EXIT_MS);
        for attempt in held.iter().filter(|attempt| liveness.breaker.is_trial(**attempt)) {
            if let Some((_, LiveState::Running { .. })) = self.find_current(attempt.task) {
                self.alarms.set(looked_at, Alarm::Trial(worker.clone(), *attempt));
            }
        }
        self.alarms.set(now.mono, Alarm::Worker(worker.clone()));
        self.liveness.insert(worker.clone(), liveness);
    }

    /// No worker can be reached until it says hello; that it was heard counts on.
    pub fn disconnect(&mut self) {
        self.liveness.values_mut().for_each(|liveness| liveness.active = false);
    }

    /// Takes one command. The caller commits the batch before it takes the next turn.
    pub fn step(&mut self, now: Now, input: Input) -> Batch {
        self.told_at = now.mono;
        let mut batch = Batch::default();
        let answer = match input.command {
            Command::Submit(submission) => steps::submit(self, now, submission, &mut batch),
            Command::Cancel(target) => steps::cancel(self, now, target, &mut batch),
            Command::Hello(hello) => steps::hello(self, now, hello, &mut batch),
            Command::Report { worker, session, sequence, changes, full } => {
                let report = steps::Report { worker, session, sequence, changes, full };
                steps::report(self, now, report, &mut batch)
            }
            Command::Goodbye { worker, session } => {
                steps::goodbye(self, now, &worker, session, &mut batch)
            }
            Command::Declined { worker, attempt, message } => {
                steps::declined(self, now, &worker, attempt, &message, &mut batch)
            }
            Command::Propose(placements) => steps::propose(self, now, placements, &mut batch),
            Command::Tick => {
                steps::tick(self, now, &mut batch);
                Answer::Reported
            }
        };
        if let Some(to) = input.from {
            batch.effects.push(Effect::Answer { to, answer });
        }
        batch
    }

    /// Gives every worker one fresh lease: for a master that was stopped or stalled itself, and
    /// whose workers' reports wait to be read.
    pub fn renew_leases(&mut self, now: Now) {
        for liveness in self.liveness.values_mut() {
            liveness.heard_at = now.mono;
        }
    }

    /// The next moment at which [`Command::Tick`] will have something to do.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.alarms.next()
    }

    /// Whether a plan might place something now; asking takes the wish back.
    pub fn take_plan_wish(&mut self) -> bool {
        std::mem::take(&mut self.plan_wanted) && self.has_ready()
    }

    /// Whether anything waits that a plan may place.
    pub fn has_ready(&self) -> bool {
        self.facts.queue.ready_count() > 0
    }

    /// What waits and where there is room.
    pub fn problem(&self) -> Problem {
        let lines = self.facts.queue.ready_lines();
        let demands = lines.into_iter().map(|(_, line)| Demand {
            shape: Arc::clone(&line.shape),
            count: line.ready_count.min(bounds::PLACEMENTS_PER_PLAN_MAX),
        });
        Problem { offers: self.offers(), demands: demands.collect() }
    }

    /// Every worker as a policy sees it now, by id.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        self.facts.workers.values().map(|worker| self.offer_of(worker)).collect()
    }

    /// What a worker has to give now.
    pub(crate) fn offer_of(&self, worker: &WorkerFacts) -> Offer {
        let left = bounds::ATTEMPTS_PER_WORKER_MAX.saturating_sub(worker.held.len());
        let liveness = self.liveness.get(&worker.record.id);
        let on_trial = liveness.is_some_and(|liveness| liveness.breaker.is_half_open())
            && self.has_better(&worker.record.id);
        let slots = if on_trial { left.min(1) } else { left };
        Offer {
            worker: worker.record.id.clone(),
            standing: self.standing_of(&worker.record.id),
            capacity: worker.record.capacity,
            free: worker.free(),
            slots: slots as u64,
            volumes: Arc::clone(&worker.volumes),
        }
    }

    /// Places what a policy proposed for [`Core::problem`] of this very moment. Shares that do not
    /// hold are left out: a policy can do no harm.
    pub fn apply_plan(&mut self, now: Now, problem: &Problem, plan: &Plan) -> Batch {
        let mut batch = Batch::default();
        steps::apply_plan(self, now, problem, plan, &mut batch);
        batch
    }

    /// Applies an event and remembers it for the store.
    pub(crate) fn record(&mut self, batch: &mut Batch, event: Event) {
        self.facts.apply(&event);
        batch.events.push(event);
    }

    /// Whether a worker takes work now, and why not.
    pub(crate) fn standing_of(&self, worker: &WorkerId) -> Standing {
        self.standing_at(worker, self.told_at)
    }

    pub(crate) fn standing_at(&self, worker: &WorkerId, now: Monotonic) -> Standing {
        let Some(liveness) = self.liveness.get(worker) else { return Standing::Inactive };
        match liveness.standing(now) {
            Standing::PutAside(_) if !self.has_better(worker) => Standing::Active,
            standing => standing,
        }
    }

    /// Whether another worker takes work that nothing speaks against: the last one that there is,
    /// is never put aside, for nobody would gain by it.
    fn has_better(&self, worker: &WorkerId) -> bool {
        self.liveness.iter().any(|(id, liveness)| id != worker && liveness.is_trusted())
    }

    /// Tells whoever watches how a worker stands now.
    pub(crate) fn tell_standing(&self, worker: &WorkerId, batch: &mut Batch) {
        let standing = self.standing_of(worker);
        batch.effects.push(Effect::WorkerChanged { worker: worker.clone(), standing });
    }

    /// The current attempt of a task with its state, when the task is live.
    pub(crate) fn find_current(&self, task: TaskId) -> Option<(AttemptId, &LiveState)> {
        let live = self.facts.find_live(task)?;
        Some((AttemptId { task, no: live.attempt }, &live.state))
    }

    pub(crate) fn send(batch: &mut Batch, worker: &WorkerId, session: Session, order: Order) {
        batch.effects.push(Effect::Send { worker: worker.clone(), session, order });
    }

    /// The facts, for readers that live in the same thread and for tests.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }
}
