//! One turn after the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cloudai_database::{Store, StoreError};
use cloudai_master_core::{
    Answer, Batch, ClusterView, Command, Core, Effect, Input, Token, WorkerHello,
};
use cloudai_model::{Event, JobId, JobShape, Monotonic, Now, RequestId, WorkerId};
use cloudai_scheduler::Policy;
use tokio::sync::{broadcast, mpsc};

use super::agent_gate::AgentGate;
use super::console::Console;
use super::points::Watched;
use super::room::Room;
use super::{Change, HeartError, HeartSettings, Message, Reply, StartError};
use crate::clock;
use crate::dispatch::{Dispatch, Link};

/// Most messages in one turn: bounds the size of a transaction and the wait of the first.
const MESSAGES_PER_TURN_MAX: usize = 1_024;
/// How much later than it wanted a turn may begin before the master has stood still.
const STALL_MS_MAX: u64 = 5_000;
/// How often a store that failed is read until it is given up.
const RELOAD_TRIES_MAX: u32 = 10;
/// Pause between two of them.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Heart {
    core: Core,
    store: Box<dyn Store>,
    policy: Box<dyn Policy>,
    agent: AgentGate,
    dispatch: Dispatch,
    changes: broadcast::Sender<Change>,
    console: Console,
    last_token: u64,
    room: Room,
}

/// Who waits for what in the present turn.
#[derive(Default)]
struct Waiters {
    answers: HashMap<Token, (Option<Reply<Answer>>, Option<Link>)>,
    /// Workers that said hello in this turn: what else is here of them came over an older link.
    hellos: HashSet<WorkerId>,
    /// Jobs of this turn by their request: the store does not have them yet, and the core no
    /// longer has one that was cancelled at once.
    submitted: HashMap<RequestId, (JobId, JobShape)>,
    views: Vec<Reply<Arc<ClusterView>>>,
    questions: Vec<Message>,
    /// What can be said again when the store has no room: that a worker lives.
    signs_of_life: Vec<(Token, Command)>,
    stop: bool,
}

impl Waiters {
    /// Tells everybody that the turn did not happen.
    fn refuse(self, told: &HeartError) {
        // Whoever is gone does not hear it.
        for reply in self.answers.into_values().filter_map(|(reply, _)| reply) {
            drop(reply.send(Err(told.clone())));
        }
        for reply in self.views {
            drop(reply.send(Err(told.clone())));
        }
        for question in self.questions {
            match question {
                Message::Explain(_, reply) => drop(reply.send(Err(told.clone()))),
                Message::Pending(_, reply) => drop(reply.send(Err(told.clone()))),
                _ => {}
            }
        }
    }
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
            policy: settings.policy,
            agent: AgentGate::new(settings.agent_deadline_ms),
            dispatch: Dispatch::default(),
            changes,
            console: Console::default(),
            last_token: 0,
            room: Room::default(),
        }
    }

    /// Runs until it is told to stop, or until the store cannot be read any more.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
    ) -> Result<(), StartError> {
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN_MAX);
        loop {
            let deadline = self.next_deadline();
            let sleep = async {
                match deadline {
                    Some(at) => clock::wait_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = inbox.recv_many(&mut messages, MESSAGES_PER_TURN_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = sleep => {}
            }
            if self.turn(messages.drain(..))? {
                return Ok(());
            }
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        let due = [self.core.next_deadline(), self.agent.next_deadline()];
        self.room.pause_end().or_else(|| due.into_iter().flatten().min())
    }

    /// Takes everything that came in; true when it was told to stop.
    fn turn(&mut self, messages: impl Iterator<Item = Message>) -> Result<bool, StartError> {
        let now = clock::now();
        self.look_for_stall(now);
        let is_paused = self.room.is_paused(now.mono);
        let mut batch = Batch::default();
        if !is_paused {
            batch = self.core.step(now, Input { from: None, command: Command::Tick });
        }
        let mut waiters = Waiters::default();
        for message in messages {
            self.take(now, message, &mut batch, &mut waiters);
        }
        if !is_paused {
            self.plan(now, &mut batch);
        }
        let stop = waiters.stop;
        let anything = !batch.events().is_empty();
        match batch.commit(&mut Watched(self.store.as_mut())) {
            Ok(effects) => {
                if self.room.kept(now.mono, anything) {
                    tracing::info!("The store has room again");
                }
                self.release(effects, &mut waiters);
                self.answer_questions(now, &mut waiters);
            }
            Err(error) => self.start_over(now, &error, waiters)?,
        }
        Ok(stop)
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
                if let Err(error) = self.complete(&mut command, waiters) {
                    if let Some(reply) = reply {
                        drop(reply.send(Err(HeartError::of_store(&error))));
                    }
                    return;
                }
                if let (Command::Hello(hello), Some(_)) = (&command, &link) {
                    waiters.hellos.insert(hello.id.clone());
                }
                let by_agent = matches!(command, Command::Propose(_));
                let sign = link.is_some().then(|| sign_of_life(&command)).flatten();
                let decided = self.step(now, command, (reply, link), waiters);
                waiters.signs_of_life.extend(sign.map(|sign| (Token(self.last_token), sign)));
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
                let sign = sign_of_life(&report);
                batch.append(self.step(now, report, (Some(reply), None), waiters));
                waiters.signs_of_life.extend(sign.map(|sign| (Token(self.last_token), sign)));
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
        let decided = self.core.step(now, Input { from: Some(token), command });
        for event in decided.events() {
            if let Event::JobSubmitted { job, shape, request: Some(request), .. } = event {
                waiters.submitted.insert(request.clone(), (*job, *shape));
            }
        }
        decided
    }

    /// A submit that was sent again long after its job ended is known to the store only.
    fn complete(&mut self, command: &mut Command, waiters: &Waiters) -> Result<(), StoreError> {
        if let Command::Submit(submission) = command
            && let Some(request) = &submission.request
        {
            submission.known = match waiters.submitted.get(request) {
                Some(known) => Some(*known),
                None => self.store.find_request(request)?,
            };
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
                Effect::WorkerChanged { worker, .. } => Change::Worker(worker),
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
    fn answer_questions(&mut self, now: Now, waiters: &mut Waiters) {
        self.core.set_store_full(self.room.is_full(now.mono));
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

    /// The store did not keep the turn: nothing of it happened.
    fn start_over(
        &mut self,
        now: Now,
        error: &StoreError,
        mut waiters: Waiters,
    ) -> Result<(), StartError> {
        if matches!(error, StoreError::Full { .. }) {
            let gone_on = self.go_on_without_room(now, error, &mut waiters);
            waiters.refuse(&HeartError::of_store(error));
            return gone_on;
        }
        tracing::error!("{}", describe(error));
        waiters.refuse(&HeartError::of_store(error));
        self.reload(now)?;
        self.disconnect();
        Ok(())
    }

    /// A store without room can be read, and what it holds is true. The sessions stay: what is
    /// heard of the workers keeps their leases alive, so that what runs goes on, and what they had
    /// to say comes again with their next full reports. Whoever only looks is answered.
    fn go_on_without_room(
        &mut self,
        now: Now,
        error: &StoreError,
        waiters: &mut Waiters,
    ) -> Result<(), StartError> {
        self.reload(now)?;
        if self.room.refused(now.mono, clock::now().mono) {
            tracing::error!("{}", describe(error));
        }
        let mut batch = Batch::default();
        for (from, command) in std::mem::take(&mut waiters.signs_of_life) {
            batch.append(self.core.step(now, Input { from: Some(from), command }));
        }
        match batch.commit(&mut Watched(self.store.as_mut())) {
            Ok(effects) => {
                self.release(effects, waiters);
                self.answer_questions(now, waiters);
            }
            Err(error) => {
                tracing::error!("{}", describe(&error));
                self.reload(now)?;
                self.disconnect();
            }
        }
        Ok(())
    }

    /// Makes the core anew. Waits here, without taking commands, until the store can be read; when
    /// it cannot for long, whoever starts masters has to try.
    fn reload(&mut self, now: Now) -> Result<(), StartError> {
        let mut tries = 0;
        loop {
            match self.load_again() {
                Ok(core) => {
                    self.core = core;
                    self.renew_after(now, clock::now());
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!("cannot load the store again: {}", describe(&error));
                    tries += 1;
                    if tries == RELOAD_TRIES_MAX {
                        return Err(error);
                    }
                }
            }
            std::thread::sleep(RELOAD_PAUSE);
        }
    }

    /// While the store was read for long, the workers' reports waited.
    fn renew_after(&mut self, begun: Now, now: Now) {
        if now.mono.ms_since(begun.mono) > STALL_MS_MAX {
            self.core.renew_leases(now);
        }
    }

    /// Every worker says hello again and tells what it holds.
    fn disconnect(&mut self) {
        self.core.disconnect();
        self.dispatch.disconnect_sessions();
    }

    fn load_again(&mut self) -> Result<Core, StartError> {
        let loaded = self.store.load()?;
        Ok(self.core.reload(loaded, clock::now())?)
    }
}

/// What is left of a worker's message when nothing of it can be stored: that it lives. The number
/// of a report is given back, which renews its leases; what it said comes again with the next full
/// report.
fn sign_of_life(command: &Command) -> Option<Command> {
    match command {
        Command::Report { worker, session: Some(session), sequence: sequence @ 1.., .. } => {
            let (worker, session) = (worker.clone(), Some(*session));
            let (sequence, changes, full) = (*sequence, Vec::new(), None);
            Some(Command::Report { worker, session, sequence, changes, full })
        }
        Command::Hello(hello) if hello.session.is_some() => Some(Command::Hello(WorkerHello {
            id: hello.id.clone(),
            session: hello.session,
            kind: hello.kind,
            address: hello.address.clone(),
            capacity: hello.capacity,
            volumes: hello.volumes.clone(),
            version: hello.version.clone(),
            held: None,
            degraded: hello.degraded.clone(),
            stream: hello.stream,
        })),
        _ => None,
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

#[cfg(test)]
mod tests {
    use cloudai_database::MemoryStore;
    use cloudai_master_core::Settings;
    use cloudai_master_core::{CancelTarget, Submission};
    use cloudai_model::TaskSpec;
    use cloudai_scheduler::PolicyKind;
    use tokio::sync::oneshot;

    use super::*;

    fn heart() -> Heart {
        let mut store = Box::<MemoryStore>::default();
        let settings = Settings::default();
        let core = Core::restore(store.load().unwrap(), settings, clock::now()).unwrap();
        let policy = PolicyKind::FirstFit.build();
        let settings = HeartSettings { core: settings, policy, agent_deadline_ms: None };
        Heart::new(core, store, settings, broadcast::channel(1).0)
    }

    fn ask(command: Command) -> (Message, oneshot::Receiver<Result<Answer, HeartError>>) {
        let (reply, answer) = oneshot::channel();
        (Message::Command { command, reply: Some(reply), link: None }, answer)
    }

    #[test]
    fn one_request_id_is_one_job_even_within_a_turn_that_ends_it() {
        let submit = || {
            let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
            let request = Some(RequestId::new("r").unwrap());
            Command::Submit(Submission { spec, shape: JobShape::Single, request, known: None })
        };
        let cancel = Command::Cancel(CancelTarget::Job(JobId(1)));
        let (messages, answers): (Vec<_>, Vec<_>) =
            [submit(), cancel, submit()].into_iter().map(ask).unzip();
        assert!(!heart().turn(messages.into_iter()).unwrap());
        let said: Vec<Answer> =
            answers.into_iter().map(|mut answer| answer.try_recv().unwrap().unwrap()).collect();
        let (job, shape) = (JobId(1), JobShape::Single);
        assert_eq!(said[0], Answer::Submitted { job, shape, existing: false });
        assert_eq!(said[1], Answer::Cancelled { ended: 1, stopping: 0 });
        assert_eq!(said[2], Answer::Submitted { job, shape, existing: true });
    }
}
