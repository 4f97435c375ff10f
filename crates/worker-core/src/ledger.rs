//! The ledger itself: one total function from (state, input) to effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use cloudai_model::{
    AttemptId, AttemptNo, AttemptReport, Cause, Monotonic, Outcome, ReportWhat, Session,
    StopReason, TaskId, TaskSpec, Timestamp,
};

use crate::lease::{LeaseTimes, Leases};
use crate::words::{Effect, Input, Outgoing, RefusalReason, Restored};

/// How many forgotten attempts are remembered, so that a late assign of one is refused.
const FORGOTTEN_LEN_MAX: usize = 16_384;

/// Most time from SIGTERM to SIGKILL for an attempt without a valid lease, in milliseconds: its
/// master waits little longer before it places the task again, or has done so.
const LEASE_END_GRACE_MS_MAX: u64 = 1_000;

/// The bounds of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerConfig {
    /// Most attempts that are held at once, ended ones that wait for `forget` among them.
    pub attempts_max: usize,
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The executor has it.
    Accepted,
    /// Its container runs.
    Running { started_at: Timestamp },
    /// The executor is done; the log or files are still on their way to the master, and until they
    /// are there the master sees what it saw last.
    Delivering { started_at: Option<Timestamp>, outcome: Outcome, at: Timestamp },
    /// Over, but for the master's `forget`.
    Ended { started_at: Option<Timestamp>, outcome: Outcome, at: Timestamp },
}

/// How far an attempt's stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Asked for by the end of this process. The master places the task again when the lease ends,
    /// which ends the grace as well.
    Leaving,
    /// Asked for; the end is reported.
    Report,
    /// Asked for; when it is gone, it is forgotten without a word.
    Discard,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    stopping: Stopping,
    lease_ms: u64,
    /// From SIGTERM to SIGKILL; less than its task has once a stop had less time.
    grace_ms: u64,
}

impl Entry {
    /// Whether the executor still has it.
    const fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Accepted | Stage::Running { .. })
    }

    /// Whether the end of its lease is still to end it.
    const fn has_lease(&self) -> bool {
        self.is_live() && matches!(self.stopping, Stopping::No | Stopping::Leaving)
    }

    /// See [`Ledger::owed_count`].
    fn is_owed(&self) -> bool {
        match &self.stage {
            Stage::Accepted | Stage::Running { .. } => false,
            Stage::Delivering { outcome, .. } | Stage::Ended { outcome, .. } => {
                outcome.cause != Cause::WorkerLost
            }
        }
    }

    fn report(&self) -> ReportWhat {
        match &self.stage {
            Stage::Accepted | Stage::Delivering { started_at: None, .. } => ReportWhat::Accepted,
            Stage::Running { started_at: at } | Stage::Delivering { started_at: Some(at), .. } => {
                ReportWhat::Started(*at)
            }
            Stage::Ended { started_at, outcome, at } => {
                ReportWhat::Ended { started_at: *started_at, outcome: outcome.clone(), at: *at }
            }
        }
    }
}

/// The attempts that one worker process holds.
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    session: Option<Session>,
    held: BTreeMap<AttemptId, Entry>,
    /// How many of `held` the executor has.
    live: usize,
    leases: Leases,
    sequence: u64,
    /// Attempts with news since the last report, in the order of the news. Old news of an attempt
    /// is replaced by its new state when the report is made, so this never exceeds what is held.
    news: VecDeque<AttemptId>,
    newsworthy: BTreeSet<AttemptId>,
    forgotten: VecDeque<AttemptId>,
    /// The latest attempt among `forgotten`, for each task.
    latest_forgotten: BTreeMap<TaskId, AttemptNo>,
    shutting_down: bool,
}

impl Ledger {
    /// A ledger that holds nothing.
    pub fn new(config: LedgerConfig) -> Self {
        assert!(config.attempts_max > 0, "a worker that may hold nothing is no worker");
        Self {
            config,
            session: None,
            held: BTreeMap::new(),
            live: 0,
            leases: Leases::default(),
            sequence: 0,
            news: VecDeque::new(),
            newsworthy: BTreeSet::new(),
            forgotten: VecDeque::new(),
            latest_forgotten: BTreeMap::new(),
            shutting_down: false,
        }
    }

    /// A ledger that takes up what an earlier process held. Live attempts are not started: whoever
    /// restores them goes on with them. Their leases run on as they did; ended ones are delivered
    /// again.
    pub fn restore(config: LedgerConfig, lease: LeaseTimes, attempts: Vec<Restored>) -> Self {
        let mut ledger = Self::new(config);
        ledger.leases = Leases::resume(lease);
        for Restored { report, spec } in attempts {
            let stage = match report.what {
                ReportWhat::Accepted => Stage::Accepted,
                ReportWhat::Started(started_at) => Stage::Running { started_at },
                ReportWhat::Ended { started_at, outcome, at } => {
                    Stage::Delivering { started_at, outcome, at }
                }
            };
            ledger.insert(report.attempt, stage, &spec);
        }
        ledger
    }

    /// The session that the process has; `None` before the first welcome.
    pub const fn session(&self) -> Option<Session> {
        self.session
    }

    /// When the last report that the master is known to have was sent.
    pub const fn renewed_at(&self) -> Monotonic {
        self.leases.renewed_at()
    }

    /// How many attempts the executor has.
    pub const fn live_count(&self) -> usize {
        self.live
    }

    /// How many attempts are held, ended ones among them.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// How many ended attempts have a result that the master is not known to have. That the worker
    /// itself stopped one is none: its goodbye says so too.
    pub fn owed_count(&self) -> usize {
        self.held.values().filter(|entry| entry.is_owed()).count()
    }

    /// How many ended attempts the master is still to get something of: the log, files, or the
    /// result that is owed.
    pub fn undelivered_count(&self) -> usize {
        let is_undelivered =
            |entry: &&Entry| matches!(entry.stage, Stage::Delivering { .. }) || entry.is_owed();
        self.held.values().filter(is_undelivered).count()
    }

    /// Whether it takes nothing new any more.
    pub const fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    /// Whether there is something to report.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// When to come back with [`Input::Tick`]: the shortest lease of a live attempt ends then, of
    /// those that nobody stopped yet, or only the end of this process.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.leases.next_end()
    }

    /// Begins a stream: everything that is held goes with its hello, so there is no other news, and
    /// reports count from 1 again.
    pub fn begin_stream(&mut self) -> Vec<AttemptReport> {
        self.leases.begin_stream();
        self.sequence = 0;
        self.news.clear();
        self.newsworthy.clear();
        self.list()
    }

    /// The next report, which is sent now: the news, and with `full` everything that is held.
    pub fn take_report(&mut self, now: Monotonic, full: bool) -> Outgoing {
        self.sequence += 1;
        self.leases.sent(self.sequence, now);
        self.newsworthy.clear();
        let held = &self.held;
        let news = self.news.drain(..);
        let report = |attempt| AttemptReport { attempt, what: held[&attempt].report() };
        let changes = news.map(report).collect();
        Outgoing { sequence: self.sequence, changes, full: full.then(|| self.list()) }
    }

    /// Takes one input and adds what to do about it to `effects`.
    pub fn step(&mut self, now: Monotonic, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Assign { attempt, spec } => self.assign(attempt, spec, effects),
            Input::Stop { attempt, reason } => self.stop(attempt, reason, effects),
            Input::Forget { attempt } => self.forget(attempt, effects),
            Input::Started { attempt, at } => self.started(attempt, at),
            Input::Ended { attempt, outcome, at } => self.ended(attempt, outcome, at, effects),
            Input::Delivered { attempt } => self.delivered(attempt),
            Input::Welcomed { session, hello_sent_at } => {
                self.session = Some(session);
                self.leases.renew(hello_sent_at);
            }
            Input::SessionUnknown => self.session = None,
            Input::Acknowledged { sequence } => self.leases.acknowledge(sequence),
            Input::Tick => self.end_leases(now, effects),
            Input::ShutDown => self.shut_down(effects),
        }
    }

    fn assign(&mut self, attempt: AttemptId, spec: Arc<TaskSpec>, effects: &mut Vec<Effect>) {
        if self.held.contains_key(&attempt) {
            return;
        }
        let refusal = if self.shutting_down {
            Some(RefusalReason::ShuttingDown)
        } else if self.is_outdated(attempt) {
            Some(RefusalReason::Outdated)
        } else if self.held.len() >= self.config.attempts_max {
            Some(RefusalReason::Full)
        } else {
            None
        };
        if let Some(reason) = refusal {
            // The master tries elsewhere once it hears of it: an assign that is still on its way
            // must not start here what already runs there.
            if reason == RefusalReason::Full {
                self.remember(attempt);
            }
            effects.push(Effect::Refuse { attempt, reason });
            return;
        }
        self.insert(attempt, Stage::Accepted, &spec);
        effects.push(Effect::Start { attempt, spec });
    }

    /// Whether this attempt or a later one of its task is or was here.
    fn is_outdated(&self, attempt: AttemptId) -> bool {
        let forgotten = self.latest_forgotten.get(&attempt.task);
        let last = AttemptId { task: attempt.task, no: AttemptNo(u32::MAX) };
        forgotten.is_some_and(|no| *no >= attempt.no)
            || self.held.range(attempt..=last).next().is_some()
    }

    fn insert(&mut self, attempt: AttemptId, stage: Stage, spec: &TaskSpec) {
        let entry = Entry {
            stage,
            stopping: Stopping::No,
            lease_ms: spec.retry.lease_ms,
            grace_ms: spec.limits.grace_ms,
        };
        if entry.is_live() {
            self.live += 1;
            self.leases.add(entry.lease_ms);
        }
        let before = self.held.insert(attempt, entry);
        assert!(before.is_none(), "{attempt} is taken once");
    }

    fn stop(&mut self, attempt: AttemptId, reason: StopReason, effects: &mut Vec<Effect>) {
        let Some(entry) = self.held.get(&attempt) else { return };
        match (reason, entry.is_live()) {
            (StopReason::Cancelled, true) => {
                self.stop_live(attempt, Cause::Cancelled, u64::MAX, effects);
            }
            (StopReason::Cancelled, false) => {}
            (StopReason::Stale, true) => self.discard_live(attempt, effects),
            (StopReason::Stale, false) => self.drop_held(attempt, effects),
        }
    }

    /// Stops a live attempt with a cause, once; again only to shorten its grace. From here on no
    /// lease has to end it: the master knows of the stop, or the lease has ended.
    fn stop_live(
        &mut self,
        attempt: AttemptId,
        cause: Cause,
        grace_ms_max: u64,
        effects: &mut Vec<Effect>,
    ) {
        let entry = self.held.get_mut(&attempt).expect("a live attempt is held");
        let is_first = entry.stopping == Stopping::No;
        if entry.has_lease() {
            entry.stopping = Stopping::Report;
            self.leases.remove(entry.lease_ms);
        }
        if is_first || grace_ms_max < entry.grace_ms {
            entry.grace_ms = entry.grace_ms.min(grace_ms_max);
            effects.push(Effect::Stop { attempt, cause, grace_ms: entry.grace_ms });
        }
    }

    fn discard_live(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        self.stop_live(attempt, Cause::WorkerLost, LEASE_END_GRACE_MS_MAX, effects);
        let entry = self.held.get_mut(&attempt).expect("a live attempt is held");
        entry.stopping = Stopping::Discard;
    }

    fn forget(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        match self.held.get(&attempt) {
            None => {}
            // The master never forgets what it has not seen the end of, unless it has another
            // end for it: then what runs here is of no use to anyone.
            Some(entry) if entry.is_live() => self.discard_live(attempt, effects),
            Some(_) => self.drop_held(attempt, effects),
        }
    }

    fn drop_held(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let entry = self.held.remove(&attempt).expect("what is dropped was held");
        assert!(!entry.is_live(), "{attempt} is dropped only when it is gone");
        if self.newsworthy.remove(&attempt) {
            self.news.retain(|other| *other != attempt);
        }
        self.remember(attempt);
        effects.push(Effect::Drop { attempt });
    }

    fn remember(&mut self, attempt: AttemptId) {
        let latest = self.latest_forgotten.entry(attempt.task).or_insert(attempt.no);
        *latest = (*latest).max(attempt.no);
        self.forgotten.push_back(attempt);
        if self.forgotten.len() > FORGOTTEN_LEN_MAX {
            let oldest = self.forgotten.pop_front().expect("it is longer than its bound");
            if self.latest_forgotten.get(&oldest.task) == Some(&oldest.no) {
                self.latest_forgotten.remove(&oldest.task);
            }
        }
    }

    fn started(&mut self, attempt: AttemptId, at: Timestamp) {
        let Some(entry) = self.held.get_mut(&attempt) else { return };
        if entry.stage == Stage::Accepted {
            entry.stage = Stage::Running { started_at: at };
            self.announce(attempt);
        }
    }

    fn ended(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        at: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.held.get_mut(&attempt) else { return };
        let started_at = match entry.stage {
            Stage::Accepted => None,
            Stage::Running { started_at } => Some(started_at),
            Stage::Delivering { .. } | Stage::Ended { .. } => return,
        };
        // The engine and this process may read their clocks in either order.
        let at = started_at.map_or(at, |started_at| at.max(started_at));
        entry.stage = Stage::Delivering { started_at, outcome, at };
        let (lease_ms, stopping) = (entry.lease_ms, entry.stopping);
        self.live -= 1;
        match stopping {
            Stopping::No | Stopping::Leaving => self.leases.remove(lease_ms),
            Stopping::Report => {}
            Stopping::Discard => self.drop_held(attempt, effects),
        }
    }

    fn delivered(&mut self, attempt: AttemptId) {
        let Some(entry) = self.held.get_mut(&attempt) else { return };
        if let Stage::Delivering { started_at, outcome, at } = &entry.stage {
            let (started_at, at) = (*started_at, *at);
            entry.stage = Stage::Ended { started_at, outcome: outcome.clone(), at };
            self.announce(attempt);
        }
    }

    fn announce(&mut self, attempt: AttemptId) {
        if self.newsworthy.insert(attempt) {
            self.news.push_back(attempt);
        }
    }

    fn end_leases(&mut self, now: Monotonic, effects: &mut Vec<Effect>) {
        if self.leases.next_end().is_none_or(|end| end > now) {
            return;
        }
        let over = |entry: &Entry| entry.has_lease() && self.leases.is_over(entry.lease_ms, now);
        let attempts = self.held.iter().filter(|(_, entry)| over(entry)).map(|(id, _)| *id);
        for attempt in attempts.collect::<Vec<_>>() {
            // Not `WorkerLost`, which says that this process goes: the task may be what kept it
            // from its master, and that counts.
            self.stop_live(attempt, Cause::Cancelled, LEASE_END_GRACE_MS_MAX, effects);
        }
    }

    /// Stops what nobody stopped yet. The master hears of this worker until the last has ended, so
    /// each has its whole grace.
    fn shut_down(&mut self, effects: &mut Vec<Effect>) {
        self.shutting_down = true;
        for (attempt, entry) in &mut self.held {
            if entry.is_live() && entry.stopping == Stopping::No {
                entry.stopping = Stopping::Leaving;
                let (attempt, grace_ms) = (*attempt, entry.grace_ms);
                effects.push(Effect::Stop { attempt, cause: Cause::WorkerLost, grace_ms });
            }
        }
    }

    fn list(&self) -> Vec<AttemptReport> {
        let report = |(attempt, entry): (&AttemptId, &Entry)| AttemptReport {
            attempt: *attempt,
            what: entry.report(),
        };
        self.held.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests;
