//! The master's borders: streams are read into the inbox, and effects leave as answers and orders,
//! as `master/src/grpc/session.rs` and `master/src/dispatch.rs` do it. An order may be lost here.

use std::collections::{BTreeMap, BTreeSet};

use cloudai_master_core::{
    Answer, Batch, CancelTarget, Command, Effect, FullReport, Input, Order, Rejection, StreamNo,
    WorkerHello,
};
use cloudai_model::{
    AttemptId, AttemptReport, Cause, LiveState, Now, Outcome, ReportWhat, Session, TaskId,
    WorkerId, WorkerKind,
};

use crate::client::{CallId, is_about};
use crate::master::{Asker, Message, Waiters};
use crate::net::{Down, Orders, Refusal, StreamId, Up};
use crate::plant::Plant;
use crate::world::{Happening, World};

/// What leaves the master, in one piece.
#[derive(Debug)]
pub(crate) enum Item {
    Answer(Asker, Answer),
    Orders(WorkerId, Session, Orders),
}

impl World {
    /// Something arrives over a stream, unless its master is gone.
    pub(crate) fn on_master_hears(&mut self, id: StreamId) {
        let Some(message) = self.arrive_up(id) else { return };
        let now_ms = self.queue.now_ms();
        let life = self.master.life_up();
        let stream = self.net.stream(id);
        if life != Some(stream.master_life) {
            // Nobody listens there any more, and the system says so.
            if stream.is_open_at_worker && !matches!(message, Up::End) {
                self.send_down(id, Down::End);
            }
            return;
        }
        if !stream.is_open_at_master {
            return;
        }
        stream.heard_at_ms = now_ms;
        stream.received.push_back(message);
        self.read_on(id);
    }

    /// The reader of a stream takes one message after the other, each when the last is stored.
    pub(crate) fn read_on(&mut self, id: StreamId) {
        let stream = self.net.stream(id);
        if stream.is_reading || !stream.is_open_at_master {
            return;
        }
        let Some(message) = stream.received.pop_front() else { return };
        let plan = &self.workers[self.net.streams[id.0].worker].plan;
        let worker = plan.id.clone();
        let (command, from) = match message {
            Up::End => return self.close_at_master(id),
            Up::Begin => return self.challenge(id),
            Up::Hello { session, held, degraded } => {
                let capacity = plan.capacity;
                let stream = self.find_number(id);
                let hello = WorkerHello {
                    id: worker,
                    session,
                    kind: WorkerKind::Session,
                    address: String::new(),
                    capacity,
                    volumes: BTreeSet::new(),
                    version: String::new(),
                    held: Some(held),
                    degraded,
                    stream,
                };
                (Command::Hello(hello), Asker::Hello(id))
            }
            Up::Report { sequence, changes, full, degraded } => {
                let full = full.map(|held| FullReport { held, degraded });
                let session = self.net.streams[id.0].session;
                let report = Command::Report { worker, session, sequence, changes, full };
                (report, Asker::Report(id))
            }
            Up::Goodbye => {
                let Some(session) = self.net.streams[id.0].session else { return };
                (Command::Goodbye { worker, session }, Asker::Goodbye(id))
            }
        };
        self.net.stream(id).is_reading = true;
        self.put_in(Message { command, from });
    }

    /// Counts a stream and lets whoever opened it prove that he lives.
    fn challenge(&mut self, id: StreamId) {
        self.net.stream(id).number = self.draw_stream_number();
        self.send_down(id, Down::Challenge);
        self.read_on(id);
    }

    fn draw_stream_number(&mut self) -> Option<StreamNo> {
        let process = self.master.process.as_mut()?;
        process.streams += 1;
        Some(StreamNo(process.streams))
    }

    /// The number of a stream over which a hello came.
    fn find_number(&mut self, id: StreamId) -> Option<StreamNo> {
        let stream = &self.net.streams[id.0];
        let (number, life) = (stream.number, stream.worker_life);
        match self.plant {
            Some(Plant::LateHello) => None,
            Some(Plant::DeadHello) if self.workers[stream.worker].life_up() != Some(life) => {
                self.draw_stream_number()
            }
            _ => number,
        }
    }

    /// Puts a message into the inbox.
    pub(crate) fn put_in(&mut self, message: Message) {
        let wait_ms = self.master.random.u64(0..=1);
        let Some(process) = self.master.process.as_mut() else { return };
        process.inbox.push_back(message);
        self.wake_master(self.queue.now_ms() + wait_ms);
    }

    /// Whether a stream is the one over which its worker is reached.
    pub(crate) fn is_linked(&self, id: StreamId) -> bool {
        let links = self.master.process.as_ref().map(|process| &process.links);
        links.is_some_and(|links| links.values().any(|(_, stream)| *stream == id))
    }

    /// A report of a stream whose place another has taken: the reader gives up.
    pub(crate) fn refuse_report(&mut self, id: StreamId) {
        self.say(format_args!("master: drops a report of the replaced stream {}", id.0));
        self.net.stream(id).is_reading = false;
        self.close_at_master(id);
    }

    /// Answers go first, so that a worker's link stands before anything is sent over it.
    pub(crate) fn sort_effects(
        &mut self,
        effects: Vec<Effect>,
        waiters: &mut Waiters,
    ) -> Vec<Item> {
        let answers = &mut waiters.answers;
        let mut items = Vec::new();
        let mut batches: BTreeMap<(WorkerId, Session), Orders> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Answer { to, answer } => {
                    let asker = answers.remove(&to);
                    let word = waiters.words.remove(&to);
                    if let (Answer::Welcome(_) | Answer::Reported, Some(word)) = (&answer, word) {
                        self.oracle.waits.heard(self.queue.now_ms(), word);
                    }
                    items.extend(asker.map(|asker| Item::Answer(asker, answer)));
                }
                Effect::Send { worker, session, order } => {
                    let batch = batches.entry((worker, session)).or_default();
                    match order {
                        Order::Assign { attempt, spec } => batch.assign.push((attempt, spec)),
                        Order::Stop { attempt, reason } => batch.stop.push((attempt, reason)),
                        Order::Forget { attempt } => batch.forget.push(attempt),
                        Order::Acknowledge { sequence } => {
                            batch.acknowledged = batch.acknowledged.max(sequence);
                        }
                    }
                }
                _ => {}
            }
        }
        let mut orders: Vec<Item> = batches
            .into_iter()
            .map(|((worker, session), orders)| Item::Orders(worker, session, orders))
            .collect();
        if self.plant == Some(Plant::Chance) {
            // What a table without an order does.
            fastrand::shuffle(&mut orders);
        }
        items.extend(orders);
        items
    }

    pub(crate) fn release(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Answer(asker, answer) => self.answer(asker, answer),
                Item::Orders(worker, session, orders) => self.dispatch(&worker, session, orders),
            }
        }
    }

    fn dispatch(&mut self, worker: &WorkerId, session: Session, orders: Orders) {
        let Some(process) = self.master.process.as_mut() else { return };
        let Some((linked, stream)) = process.links.get(worker).copied() else { return };
        if linked != session {
            return;
        }
        self.judge_orders(worker, &orders);
        let Some(process) = self.master.process.as_mut() else { return };
        if !self.net.stream(stream).is_open_at_master {
            process.links.remove(worker);
            return;
        }
        if !orders.is_acknowledgement() && self.draw_doubled() {
            let (ms, orders) = (self.draw_again_ms(), orders.clone());
            let again =
                Happening::OrdersAgain { stream, orders: Orders { acknowledged: 0, ..orders } };
            self.queue.after(ms, again);
        }
        self.send_down(stream, Down::Orders(orders));
    }

    /// An effect that was carried out once is carried out once more.
    pub(crate) fn on_orders_again(&mut self, stream: StreamId, orders: Orders) {
        if self.is_linked(stream) && self.net.stream(stream).is_open_at_master {
            self.send_down(stream, Down::Orders(orders));
        }
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        match asker {
            Asker::Client(call) => self.answer_client(call, answer),
            Asker::Hello(stream) => self.answer_hello(stream, &answer),
            Asker::Report(stream) => {
                self.net.stream(stream).is_reading = false;
                match &answer {
                    Answer::Rejected(rejection) => self.refuse_stream(stream, rejection),
                    _ => self.read_on(stream),
                }
            }
            Asker::Goodbye(stream) => self.close_at_master(stream),
        }
    }

    fn answer_hello(&mut self, id: StreamId, answer: &Answer) {
        self.net.stream(id).is_reading = false;
        match answer {
            Answer::Welcome(session) => {
                let worker = self.workers[self.net.streams[id.0].worker].plan.id.clone();
                self.net.stream(id).session = Some(*session);
                let Some(process) = self.master.process.as_mut() else { return };
                let older = process.links.insert(worker, (*session, id));
                if let Some((_, older)) = older.filter(|(_, older)| *older != id) {
                    self.end_orders(older);
                }
                if self.net.stream(id).is_open_at_master {
                    self.send_down(id, Down::Welcome(*session));
                    self.read_on(id);
                }
            }
            Answer::Rejected(rejection) => self.refuse_stream(id, rejection),
            _ => self.close_at_master(id),
        }
    }

    /// Another stream took this one's place: its orders end, and what it has still to read is
    /// refused when it comes to that.
    fn end_orders(&mut self, older: StreamId) {
        if self.net.stream(older).is_open_at_master {
            self.send_down(older, Down::End);
        }
    }

    fn refuse_stream(&mut self, id: StreamId, rejection: &Rejection) {
        let refusal = match rejection {
            Rejection::Superseded(_) => Refusal::Superseded,
            Rejection::NotRegistered(_) => Refusal::Unknown,
            _ => Refusal::Invalid,
        };
        if self.net.stream(id).is_open_at_master {
            self.send_down(id, Down::Refused(refusal));
        }
        self.close_at_master(id);
    }

    /// The turn of this message was not stored.
    pub(crate) fn answer_failure(&mut self, asker: Asker) {
        match asker {
            Asker::Client(call) => self.fail_call(call),
            Asker::Hello(stream) | Asker::Report(stream) | Asker::Goodbye(stream) => {
                self.net.stream(stream).is_reading = false;
                self.close_at_master(stream);
            }
        }
    }

    fn answer_client(&mut self, call: CallId, answer: Answer) {
        self.judge_answer(call, &answer);
        self.send_answer(call, Some(answer));
    }

    /// Bugs that sit between the border and the core.
    pub(crate) fn plant_in_command(
        &mut self,
        now: Now,
        command: &mut Command,
        from: Asker,
        batch: &mut Batch,
    ) {
        match (self.plant, &mut *command) {
            (Some(Plant::Oversell), Command::Hello(hello)) => {
                hello.capacity.cpu_milli *= 2;
                hello.capacity.memory_bytes *= 2;
            }
            (Some(Plant::NoFence), Command::Report { worker, session, changes, full, .. }) => {
                let held = full.iter_mut().flat_map(|full| &mut full.held);
                let reports = changes.iter_mut().chain(held);
                self.take_off_fence(worker, session, reports);
            }
            (Some(Plant::NoFence), Command::Hello(hello)) => {
                let held = hello.held.iter_mut().flatten();
                let (mut worker, mut session) = (hello.id.clone(), None);
                self.take_off_fence(&mut worker, &mut session, held);
            }
            (Some(Plant::ForgetBeforeCommit), Command::Report { worker, changes, .. }) => {
                let ended =
                    |report: &&AttemptReport| matches!(report.what, ReportWhat::Ended { .. });
                let forget: Vec<_> =
                    changes.iter().filter(ended).map(|report| report.attempt).collect();
                let session = self.master.process.as_ref().and_then(|one| one.links.get(worker));
                if let (Some((session, _)), false) = (session.copied(), forget.is_empty()) {
                    let worker = worker.clone();
                    self.dispatch(&worker, session, Orders { forget, ..Orders::default() });
                }
            }
            (Some(Plant::HealthKept), Command::Report { worker, full: Some(full), .. }) => {
                let unwell = &mut self.master.unwell;
                if full.degraded.is_some() {
                    unwell.insert(worker.clone());
                } else if unwell.contains(worker) {
                    full.degraded = Some("it was unwell once".to_owned());
                }
            }
            (Some(Plant::CancelDropped), Command::Cancel(_)) if self.master.random.bool() => {
                *command = Command::Tick;
                self.answer(from, Answer::Cancelled { ended: 0, stopping: 1 });
            }
            (Some(Plant::CancelRefused), Command::Cancel(_)) if self.master.random.bool() => {
                *command = Command::Tick;
                self.answer(from, Answer::Rejected(Rejection::NotLive));
            }
            (Some(Plant::RoomTooSoon), Command::Cancel(target)) => {
                let target = *target;
                self.step_beside(now, Command::Cancel(target), batch);
                self.end_at_once(now, target, batch);
            }
            (Some(Plant::CancelTooMany), Command::Cancel(CancelTarget::Task(task))) => {
                let Some(index) = task.index else { return };
                let next = TaskId { index: Some(index + 1), ..*task };
                self.step_beside(now, Command::Cancel(CancelTarget::Task(next)), batch);
            }
            _ => {}
        }
    }

    /// A command that nobody gave.
    fn step_beside(&mut self, now: Now, command: Command, batch: &mut Batch) {
        if let Some(process) = self.master.process.as_mut() {
            batch.append(process.core.step(now, Input { from: None, command }));
        }
    }

    /// What runs and is cancelled counts as ended before its worker says so.
    fn end_at_once(&mut self, now: Now, target: CancelTarget, batch: &mut Batch) {
        let Some(process) = self.master.process.as_ref() else { return };
        let snapshot = process.core.facts().snapshot();
        let live = snapshot.jobs.values().flat_map(|job| {
            let task_id = |position: &u32| job.shape.task_id(job.id, *position);
            job.live.iter().map(move |(position, live)| (task_id(position), live))
        });
        for (task, live) in live.filter(|(task, _)| is_about(target, *task)) {
            let Some(hold) = live.find_hold() else { continue };
            let (attempt, outcome) =
                (AttemptId { task, no: live.attempt }, Outcome::new(Cause::Cancelled, ""));
            let what = ReportWhat::Ended { started_at: None, outcome, at: now.wall };
            let command = Command::Report {
                worker: hold.worker.clone(),
                session: Some(hold.session),
                sequence: 0,
                changes: vec![AttemptReport { attempt, what }],
                full: None,
            };
            self.step_beside(now, command, batch);
        }
    }

    /// Every report counts as one of the present attempt of its task.
    fn take_off_fence<'a>(
        &self,
        worker: &mut WorkerId,
        session: &mut Option<Session>,
        reports: impl Iterator<Item = &'a mut AttemptReport>,
    ) {
        let Some(process) = self.master.process.as_ref() else { return };
        let snapshot = process.core.facts().snapshot();
        for report in reports {
            let task = report.attempt.task;
            let live = snapshot.jobs.get(&task.job).and_then(|job| job.live.get(&task.position()));
            let Some(live) = live else { continue };
            if let LiveState::Assigned(hold) | LiveState::Running { hold, .. } = &live.state {
                report.attempt.no = live.attempt;
                *worker = hold.worker.clone();
                *session = Some(snapshot.workers[worker].session);
            }
        }
    }
}
