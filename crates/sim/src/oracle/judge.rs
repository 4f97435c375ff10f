//! Where the world shows the judge what happens, each thing at the moment at which it becomes true
//! or visible.

use cloudai_master_core::Answer;
use cloudai_model::{AttemptId, Event, JobId, LossCause, Resources, WorkerId};

use super::reference::Place;
use crate::client::{Ask, CallId, is_about};
use crate::life::Run;
use crate::net::Orders;
use crate::records::ASK_MS;
use crate::world::World;

/// How long after a lease's end a worker may take to act on it, in milliseconds.
const CLAIM_MS_MAX: u64 = 1_000;

impl World {
    fn judge(&mut self, judged: Result<(), String>) {
        if let Err(why) = judged {
            self.fail(why);
        }
    }

    /// These events are stored.
    pub(crate) fn judge_events(&mut self, events: &[Event]) {
        let now_ms = self.queue.now_ms();
        for event in events {
            self.say_event(event);
            let holder = attempt_of(event).and_then(|one| self.oracle.reference.find_holder(one));
            self.oracle.waits.stored(now_ms, event, holder);
            self.note_given_up(event);
            let judged = self.oracle.reference.apply(event);
            self.judge(judged);
            match event {
                Event::TaskFinished { attempt, outcome, .. } => {
                    let cause = outcome.cause;
                    let by_container = !matches!(
                        cause,
                        cloudai_model::Cause::Cancelled
                            | cloudai_model::Cause::WorkerLost
                            | cloudai_model::Cause::Infra
                    );
                    if by_container {
                        let judged = self.oracle.truth.check(*attempt, cause);
                        self.judge(judged);
                    }
                }
                Event::AttemptLost { attempt, cause: LossCause::Failed(cause), .. } => {
                    let judged = self.oracle.truth.check(*attempt, *cause);
                    self.judge(judged);
                }
                Event::AttemptPlaced { attempt, .. } => self.judge_leases(*attempt),
                Event::AttemptAdopted { attempt, .. } => self.oracle.leases.adopted(*attempt),
                _ => {}
            }
        }
    }

    /// At most one attempt of a task holds a valid lease: when one is placed, those before it have
    /// none left, and their workers know it unless they stand still.
    fn judge_leases(&mut self, placed: AttemptId) {
        let now_ms = self.queue.now_ms();
        for worker in 0..self.workers.len() {
            let older = self.find_older(worker, placed);
            for (attempt, lease_ms) in older {
                let it = &self.workers[worker];
                let (id, span_ms) = (&it.plan.id, it.plan.clock.true_span_ms(lease_ms));
                let end_ms = self.oracle.leases.end_ms(worker, span_ms);
                let asks_until_ms = self.oracle.leases.asks_until_ms(worker);
                let runs = it.process.as_ref().and_then(|process| process.runs.get(&attempt));
                let goes_on = runs.is_some_and(Run::is_claimed);
                // Its master gave it up, and its worker ends it: a hello renews other leases.
                let is_ending = !goes_on && self.oracle.leases.was_given_up(attempt);
                let is_asked_for = self.oracle.leases.is_asked_for(attempt);
                if now_ms < end_ms && !is_asked_for && !is_ending {
                    let left_ms = end_ms - now_ms;
                    self.fail(format!(
                        "at most one attempt of a task holds a valid lease: {placed} is placed \
                         while {id} may run {attempt} for another {left_ms} ms"
                    ));
                } else if goes_on && !it.is_paused() && now_ms > asks_until_ms.max(end_ms) + 50 {
                    let over_ms = now_ms - end_ms;
                    self.fail(format!(
                        "a worker stops what its lease does not cover: {id} goes on with \
                         {attempt} {over_ms} ms after its lease, and {placed} is placed"
                    ));
                }
            }
        }
    }

    /// A worker that can act asks for the end of what its lease does not cover.
    pub(crate) fn judge_claims(&mut self, worker: usize) {
        let now_ms = self.queue.now_ms();
        let it = &self.workers[worker];
        let Some(process) = it.process.as_ref() else { return };
        let over = process.runs.iter().filter(|(_, run)| run.is_claimed()).find_map(|(id, run)| {
            let span_ms = it.plan.clock.true_span_ms(run.spec.retry.lease_ms);
            let end_ms = self.oracle.leases.end_ms(worker, span_ms);
            let end_ms = end_ms.max(it.resumed_at_ms).max(run.since_ms);
            let end_ms = end_ms.max(self.oracle.leases.asks_until_ms(worker));
            (now_ms > end_ms + CLAIM_MS_MAX).then(|| (*id, now_ms - end_ms))
        });
        if let Some((attempt, over_ms)) = over {
            self.fail(format!(
                "a worker stops what its lease does not cover: {} goes on with {attempt} \
                 {over_ms} ms after its lease",
                self.workers[worker].plan.id
            ));
        }
    }

    /// Earlier attempts of the same task that a machine has something of, with their leases.
    fn find_older(&self, worker: usize, placed: AttemptId) -> Vec<(AttemptId, u64)> {
        let is_older = |one: &AttemptId| one.task == placed.task && one.no < placed.no;
        let runs = self.workers[worker].process.as_ref().map(|process| &process.runs);
        let runs = runs.into_iter().flatten().filter(|(_, run)| run.is_claimed());
        let runs = runs.map(|(attempt, run)| (*attempt, run.spec.retry.lease_ms));
        let containers = self.engines[worker].containers.iter();
        let containers = containers.filter(|(_, one)| one.state.is_running());
        let containers = containers.map(|(attempt, one)| (*attempt, one.spec.retry.lease_ms));
        let mut older: Vec<_> = runs.chain(containers).filter(|(one, _)| is_older(one)).collect();
        older.sort_unstable();
        older.dedup();
        older
    }

    /// A worker process begins, and takes these up.
    pub(crate) fn judge_restart(&mut self, worker: usize, names: &[AttemptId]) {
        let judged = self.oracle.truth.check_restart(worker, names);
        self.judge(judged);
        let now_ms = self.queue.now_ms();
        let ask_ms = self.workers[worker].plan.clock.true_span_ms(ASK_MS);
        self.oracle.leases.restarted(worker, now_ms, ask_ms);
        for attempt in names {
            let plan = &self.workers[worker].plan;
            let Some(record) = self.workers[worker].disk.records.get(attempt) else { continue };
            let span_ms = plan.clock.true_span_ms(record.spec.retry.lease_ms);
            let is_over = now_ms >= self.oracle.leases.end_ms(worker, span_ms);
            if is_over || !self.oracle.reference.is_held(*attempt, &plan.id) {
                self.oracle.leases.asks_for(*attempt);
            }
        }
    }

    /// The history takes an attempt out of its worker's hands. When its lease is over by then, the
    /// master need not wait for the worker's word, and its container may go on for a moment.
    fn note_given_up(&mut self, event: &Event) {
        if !matches!(event, Event::AttemptLost { .. } | Event::TaskFinished { .. }) {
            return;
        }
        let Some(attempt) = attempt_of(event) else { return };
        let holder = self.oracle.reference.find_holder(attempt);
        let worker = self.workers.iter().position(|worker| Some(&worker.plan.id) == holder);
        let spec = self.oracle.reference.jobs.get(&attempt.task.job).map(|job| &job.spec);
        let Some((worker, spec)) = worker.zip(spec) else { return };
        let span_ms = self.workers[worker].plan.clock.true_span_ms(spec.retry.lease_ms);
        if self.queue.now_ms() >= self.oracle.leases.end_ms(worker, span_ms) {
            self.oracle.leases.given_up(attempt);
        }
    }

    /// A container starts.
    pub(crate) fn judge_start(&mut self, worker: usize, attempt: AttemptId) {
        let judged = self.oracle.truth.started(attempt, worker);
        self.judge(judged);
        let judged = self.check_running(worker, attempt);
        self.judge(judged);
    }

    /// What really runs on a machine fits into it. What its master gave up when its lease was over
    /// is not counted: a worker that was away ends it as soon as it can, and nobody can wait for a
    /// machine that may never come back.
    fn check_running(&self, worker: usize, started: AttemptId) -> Result<(), String> {
        let plan = &self.workers[worker].plan;
        let counts = |attempt: &AttemptId| {
            self.oracle.reference.is_held(*attempt, &plan.id)
                || !self.oracle.leases.was_given_up(*attempt)
        };
        let running = self.engines[worker].containers.iter();
        let running = running.filter(|(attempt, one)| one.state.is_running() && counts(attempt));
        let mut sum = Resources::default();
        for (_, one) in running {
            sum = sum.checked_add(one.spec.needs).ok_or("a sum of needs overflows")?;
        }
        match sum.find_lack(plan.capacity) {
            None => Ok(()),
            Some(lack) => Err(format!(
                "what runs on a machine fits into it: {started} starts on {} beside what runs: \
                 {lack}",
                plan.id
            )),
        }
    }

    /// Orders leave the master: only what is stored may be told.
    pub(crate) fn judge_orders(&mut self, worker: &WorkerId, orders: &Orders) {
        for (attempt, _) in &orders.assign {
            if !self.oracle.reference.was_placed(*attempt, worker) {
                self.fail(format!(
                    "durable before visible: {worker} is given {attempt}, which was never \
                     placed on it"
                ));
            }
        }
        for attempt in &orders.forget {
            if self.oracle.reference.is_held(*attempt, worker) {
                self.fail(format!(
                    "an end is forgotten only when it is stored: {worker} is to forget {attempt}, \
                     which the history has in its hands"
                ));
            }
        }
    }

    /// An answer leaves the master: what it promises is stored.
    pub(crate) fn judge_answer(&mut self, call: CallId, answer: &Answer) {
        match (self.clients.ask(call), answer) {
            (Ask::Submit(plan), Answer::Submitted { job, shape, .. }) => {
                let stored = self.oracle.reference.jobs.get(job);
                let spec = &self.scenario.jobs[plan].spec;
                if stored.is_none_or(|stored| stored.shape != *shape || stored.spec != *spec) {
                    self.fail(format!(
                        "an acknowledged submit exists: {job} was promised and is not stored"
                    ));
                    return;
                }
                let before = self.oracle.answered.insert(plan, *job);
                if before.is_some_and(|before| before != *job) {
                    self.fail(format!(
                        "one request id is one job: the same submit gave {before:?}, then {job}"
                    ));
                }
                self.judge_reader(*job);
            }
            (Ask::Cancel(target), Answer::Cancelled { .. }) => {
                let kept = |(id, job): (&JobId, &super::reference::Job)| {
                    job.tasks.iter().all(|(position, task)| {
                        let ended = matches!(task.place, Place::Ended(_));
                        let is_meant = is_about(target, job.shape.task_id(*id, *position));
                        !is_meant || ended || task.cancel_requested
                    })
                };
                if !self.oracle.reference.jobs.iter().all(kept) {
                    self.fail(format!("an acknowledged cancel is stored: {target:?} is not"));
                }
            }
            (Ask::Cancel(target), Answer::Rejected(why)) => {
                if let Some(task) = self.oracle.reference.find_open(target) {
                    self.fail(format!(
                        "a cancel of what has not ended is taken: that of {task} was refused: {why}"
                    ));
                }
            }
            _ => {}
        }
    }

    /// Whoever reads after the answer finds what was answered.
    fn judge_reader(&mut self, job: JobId) {
        let found = self.master.disk.store().reader().and_then(|mut reader| reader.find_job(job));
        match found {
            Ok(Some(_)) => {}
            Ok(None) => self.fail(format!("a reader finds what was answered: {job} is not there")),
            Err(error) => self.fail(format!("a reader cannot read: {error}")),
        }
    }
}

/// The attempt that an event is about.
const fn attempt_of(event: &Event) -> Option<AttemptId> {
    match event {
        Event::AttemptPlaced { attempt, .. }
        | Event::AttemptStarted { attempt, .. }
        | Event::AttemptAdopted { attempt, .. }
        | Event::AttemptLost { attempt, .. }
        | Event::TaskFinished { attempt, .. } => Some(*attempt),
        _ => None,
    }
}
