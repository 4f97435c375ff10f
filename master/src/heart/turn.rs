//! One turn after the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cloudai_database::{Store, StoreError};
use cloudai_master_core::{
    Answer, Batch, ClusterView, Command, Core, Effect, Input, Settings, Token,
};
use cloudai_model::{Monotonic, Now, WorkerId};
use cloudai_scheduler::Policy;
use tokio::sync::{broadcast, mpsc};

use super::agent_gate::AgentGate;
use super::console::Console;
use super::{Change, HeartError, HeartSettings, Message, Reply};
use crate::clock;
use crate::dispatch::{Dispatch, Link};

/// Most messages in one turn: bounds the size of a transaction and the wait of the first.
const MESSAGES_PER_TURN_MAX: usize = 1_024;
/// How much later than it wanted a turn may begin before the master has stood still.
const STALL_MS_MAX: u64 = 5_000;
/// Pause between attempts to read a store that fails.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Heart {
    core: Core,
    store: Box<dyn Store>,
    settings: Settings,
    policy: Box<dyn Policy>,
    agent: AgentGate,
    dispatch: Dispatch,
    changes: broadcast::Sender<Change>,
    console: Console,
    last_token: u64,
}

/// Who waits for what in the present turn.
#[derive(Default)]
struct Waiters {
    answers: HashMap<Token, (Option<Reply<Answer>>, Option<Link>)>,
    /// Workers that said hello in this turn: what else is here of them came over an older link.
    hellos: HashSet<WorkerId>,
    views: Vec<Reply<Arc<ClusterView>>>,
    questions: Vec<Message>,
    stop: bool,
}

impl Heart {
    pub(super) fn new(
        core: Core,
        store: Box<dyn Store>,
        settings: HeartSettings,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self {
            core,
            store,
            settings: settings.core,
            policy: settings.policy,
            agent: AgentGate::new(settings.agent_deadline_ms),
            dispatch: Dispatch::default(),
            changes,
            console: Console::default(),
            last_token: 0,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN_MAX);
        loop {
            let deadline = self.next_deadline();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(clock::instant_of(at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = inbox.recv_many(&mut messages, MESSAGES_PER_TURN_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                () = sleep => {}
            }
            if self.turn(messages.drain(..)) {
                return;
            }
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        [self.core.next_deadline(), self.agent.next_deadline()].into_iter().flatten().min()
    }

    /// Takes everything that came in; true when it was told to stop.
    fn turn(&mut self, messages: impl Iterator<Item = Message>) -> bool {
        let now = clock::now();
        self.look_for_stall(now);
        let mut batch = self.core.step(now, Input { from: None, command: Command::Tick });
        let mut waiters = Waiters::default();
        for message in messages {
            self.take(now, message, &mut batch, &mut waiters);
        }
        self.plan(now, &mut batch);
        match batch.commit(self.store.as_mut()) {
            Ok(effects) => {
                self.release(effects, &mut waiters);
                self.answer_questions(now, &mut waiters);
            }
            Err(error) => self.start_over(&error, waiters.answers),
        }
        waiters.stop
    }

    /// A master that was stopped itself must not hold the silence against its workers: their
    /// reports wait to be read.
    fn look_for_stall(&mut self, now: Now) {
        let late_ms = self.core.next_deadline().map_or(0, |due| now.mono.ms_since(due));
        if late_ms > STALL_MS_MAX {
            tracing::warn!("the master stood still for {late_ms} ms; leases run anew");
            self.core.renew_leases(now);
        }
    }

    fn take(&mut self, now: Now, message: Message, batch: &mut Batch, waiters: &mut Waiters) {
        match message {
            Message::Command { mut command, reply, link } => {
                if let Err(error) = self.complete(&mut command) {
                    if let Some(reply) = reply {
                        drop(reply.send(Err(HeartError::of_store(&error))));
                    }
                    return;
                }
                if let (Command::Hello(hello), Some(_)) = (&command, &link) {
                    waiters.hellos.insert(hello.id.clone());
                }
                let by_agent = matches!(command, Command::Propose(_));
                let decided = self.step(now, command, (reply, link), waiters);
                if by_agent && !decided.events().is_empty() {
                    self.agent.was_useful(now.mono);
                }
                batch.append(decided);
            }
            Message::Report(report, via, reply) => {
                let is_of = |worker: &WorkerId| waiters.hellos.contains(worker);
                let again = matches!(&report, Command::Report { worker, .. } if is_of(worker));
                if again || via.upgrade().is_none() {
                    drop(reply.send(Err(HeartError::Replaced)));
                    return;
                }
                batch.append(self.step(now, report, (Some(reply), None), waiters));
            }
            Message::Attach(session, link) => self.dispatch.attach(session, link),
            Message::View(reply) => waiters.views.push(reply),
            Message::Stop => waiters.stop = true,
            Message::Pending(..) => {
                self.agent.looked(now.mono, self.core.has_ready());
                waiters.questions.push(message);
            }
            Message::Explain(..) => waiters.questions.push(message),
        }
    }

    fn step(
        &mut self,
        now: Now,
        command: Command,
        waiter: (Option<Reply<Answer>>, Option<Link>),
        waiters: &mut Waiters,
    ) -> Batch {
        self.last_token += 1;
        let token = Token(self.last_token);
        waiters.answers.insert(token, waiter);
        self.core.step(now, Input { from: Some(token), command })
    }

    /// A submit that was sent again long after its job ended is known to the store only.
    fn complete(&mut self, command: &mut Command) -> Result<(), StoreError> {
        if let Command::Submit(submission) = command
            && let Some(request) = &submission.request
        {
            submission.known = self.store.find_request(request)?;
        }
        Ok(())
    }

    /// At most one plan a turn, and only when something changed that it might use.
    fn plan(&mut self, now: Now, batch: &mut Batch) {
        if !self.agent.policy_plans(now.mono) || !self.core.take_plan_wish() {
            return;
        }
        let problem = self.core.problem();
        let plan = self.policy.plan(&problem);
        batch.append(self.core.apply_plan(now, &problem, &plan));
    }

    /// Carries out what is true now. Answers go first, so that a worker's link stands before
    /// anything is sent over it.
    fn release(&mut self, effects: Vec<Effect>, waiters: &mut Waiters) {
        let mut sends = Vec::new();
        let watched = self.changes.receiver_count() > 0;
        for effect in effects {
            self.console.tell(&effect);
            let change = match effect {
                Effect::Answer { to, answer } => {
                    self.answer(to, answer, waiters);
                    continue;
                }
                Effect::Send { worker, session, order } => {
                    sends.push((worker, session, order));
                    continue;
                }
                Effect::TaskChanged(task) => Change::Task(task),
                Effect::TaskEnded { attempt, .. } | Effect::AttemptLost { attempt, .. } => {
                    Change::Task(attempt.task)
                }
                Effect::JobChanged(job) => Change::Job(job),
                Effect::WorkerChanged(worker) => Change::Worker(worker),
                Effect::WorkerRegistered(worker) => Change::Worker(worker.id),
            };
            if watched {
                // Without a watcher there is nobody to tell.
                drop(self.changes.send(change));
            }
        }
        self.dispatch.send(sends);
    }

    fn answer(&mut self, to: Token, answer: Answer, waiters: &mut Waiters) {
        let Some((reply, link)) = waiters.answers.remove(&to) else { return };
        if let (Answer::Welcome(session), Some(link)) = (&answer, link) {
            self.dispatch.connect(*session, link);
        }
        if let Some(reply) = reply {
            // Whoever asked may have gone; what was stored stands all the same.
            drop(reply.send(Ok(answer)));
        }
    }

    /// Questions are answered after the commit, so that nobody reads what might not last.
    fn answer_questions(&self, now: Now, waiters: &mut Waiters) {
        if !waiters.views.is_empty() {
            let view = Arc::new(self.core.view(now));
            for reply in waiters.views.drain(..) {
                drop(reply.send(Ok(Arc::clone(&view))));
            }
        }
        for question in waiters.questions.drain(..) {
            match question {
                Message::Explain(task, reply) => drop(reply.send(Ok(self.core.explain(task)))),
                Message::Pending(count, reply) => drop(reply.send(Ok(self.core.pending(count)))),
                _ => {}
            }
        }
    }

    /// The store did not keep the turn: nothing of it happened. Waits here, without taking
    /// commands, until the store can be read again.
    fn start_over(
        &mut self,
        error: &StoreError,
        waiting: HashMap<Token, (Option<Reply<Answer>>, Option<Link>)>,
    ) {
        tracing::error!("{}", describe(error));
        let told = HeartError::of_store(error);
        for reply in waiting.into_values().filter_map(|(reply, _)| reply) {
            drop(reply.send(Err(told.clone())));
        }
        loop {
            let restored = self.store.load().map_err(|error| describe(&error)).and_then(|loaded| {
                Core::restore(loaded, self.settings, clock::now()).map_err(|error| describe(&error))
            });
            match restored {
                Ok(core) => {
                    self.core = core;
                    // Every worker says hello again and tells what it holds.
                    self.dispatch.disconnect_sessions();
                    return;
                }
                Err(error) => tracing::error!("cannot load the store again: {error}"),
            }
            std::thread::sleep(RELOAD_PAUSE);
        }
    }
}

/// The error with everything that caused it.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
