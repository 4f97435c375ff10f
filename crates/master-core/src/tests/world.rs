//! One core under test, with a journal that is replayed after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use cloudai_model::{
    AttemptReport, Cause, Event, JobShape, Journal, LiveState, Monotonic, Now, Outcome, ReportWhat,
    RequestId, Resources, Session, Snapshot, TaskId, TaskSpec, TaskStatus, Timestamp, WorkerId,
    WorkerKind,
};
use cloudai_scheduler::{PolicyKind, Standing};

use crate::{
    Answer, CancelTarget, Command, Core, Effect, Facts, FullReport, Input, Order, Placement,
    Settings, Submission, Token, WorkerHello,
};

/// A journal that remembers.
#[derive(Default)]
pub(super) struct Tape(pub(super) Vec<Event>);

impl Journal for Tape {
    type Error = Infallible;

    fn commit(&mut self, events: &[Event]) -> Result<(), Infallible> {
        self.0.extend_from_slice(events);
        Ok(())
    }
}

pub(super) struct World {
    pub(super) core: Core,
    /// What there was before the tape.
    base: Snapshot,
    pub(super) tape: Tape,
    pub(super) now_ms: u64,
    /// Each task's end, as the tape told it first.
    ends: BTreeMap<TaskId, Outcome>,
    read: usize,
    /// What the operator was told of workers.
    pub(super) told: Vec<Standing>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self::of(Snapshot::default(), settings)
    }

    /// The world of a master that was started over this store.
    pub(super) fn of(base: Snapshot, settings: Settings) -> Self {
        let now = Now { wall: Timestamp(1_000), mono: Monotonic(0) };
        let core = Core::restore(base.clone(), settings, now).unwrap();
        Self {
            core,
            base,
            tape: Tape::default(),
            now_ms: 0,
            ends: BTreeMap::new(),
            read: 0,
            told: Vec::new(),
        }
    }

    /// What the tape made of the base.
    fn replayed(&self) -> Facts {
        let mut facts = Facts::restore(self.base.clone()).unwrap();
        for event in &self.tape.0 {
            facts.apply(event);
        }
        facts
    }

    pub(super) fn now(&self) -> Now {
        Now { wall: Timestamp(1_000 + self.now_ms), mono: Monotonic(self.now_ms) }
    }

    /// One turn as the heart has it: the command, then a plan. What was answered, and what was
    /// sent, as text.
    pub(super) fn turn(&mut self, command: Command) -> (Answer, String) {
        let now = self.now();
        let mut batch = self.core.step(now, Input { from: Some(Token(7)), command });
        if self.core.take_plan_wish() {
            let problem = self.core.problem();
            let plan = PolicyKind::FirstFit.build().plan(&problem);
            batch.append(self.core.apply_plan(now, &problem, &plan));
        }
        let effects = batch.commit(&mut self.tape).unwrap();
        self.check();
        let mut answer = None;
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Answer { answer: got, .. } => answer = Some(got),
                Effect::Send { worker, order, .. } => sent.push(show(&worker, &order)),
                Effect::WorkerChanged { standing, .. } => self.told.push(standing),
                _ => {}
            }
        }
        (answer.expect("every command is answered"), sent.join(", "))
    }

    /// What must hold after every step.
    fn check(&mut self) {
        self.core.facts().assert_consistent();
        let replayed = self.replayed();
        assert_eq!(replayed.snapshot(), self.core.facts().snapshot(), "replay gives another state");
        for worker in self.core.facts().workers.values() {
            let sold = worker.allocated.find_lack(worker.record.capacity);
            assert_eq!(sold, None, "worker {} is oversold", worker.record.id);
        }
        for event in &self.tape.0[self.read..] {
            if let Event::TaskFinished { attempt, outcome, .. } = event {
                let before = self.ends.insert(attempt.task, outcome.clone());
                assert_eq!(before, None, "{} ended twice", attempt.task);
            }
        }
        self.read = self.tape.0.len();
    }

    /// The master is killed and started again: only what the tape holds is left.
    pub(super) fn restart(&mut self) {
        let snapshot = self.replayed().snapshot();
        self.core = Core::restore(snapshot, self.core.settings, self.now()).unwrap();
    }

    /// A turn that the store does not keep: the core takes up where it stood before.
    pub(super) fn lose_turn(&mut self, command: Command) {
        let (now, before) = (self.now(), self.core.facts().snapshot());
        for command in [Command::Tick, command] {
            drop(self.core.step(now, Input { from: None, command }));
        }
        let problem = self.core.problem();
        let plan = PolicyKind::FirstFit.build().plan(&problem);
        drop(self.core.apply_plan(now, &problem, &plan));
        self.core = self.core.reload(before, now).unwrap();
    }

    pub(super) fn pass(&mut self, ms: u64) -> String {
        self.now_ms += ms;
        self.turn(Command::Tick).1
    }

    pub(super) fn hello(&mut self, name: &str, cores: u64) -> Session {
        match self.say_hello(name, cores, None, Some(Vec::new())).0 {
            Answer::Welcome(session) => session,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn say_hello(
        &mut self,
        name: &str,
        cores: u64,
        session: Option<u64>,
        held: Option<Vec<AttemptReport>>,
    ) -> (Answer, String) {
        self.turn(Command::Hello(hello_of(name, cores, session, held)))
    }

    /// A hello of a worker of one core that is not well.
    pub(super) fn hello_degraded(&mut self, name: &str, session: Option<u64>, why: &str) {
        let mut hello = hello_of(name, 1, session, Some(Vec::new()));
        hello.degraded = Some(why.to_owned());
        self.turn(Command::Hello(hello));
    }

    pub(super) fn submit(&mut self, spec: TaskSpec, shape: JobShape) -> (Answer, String) {
        self.submit_as(spec, shape, None)
    }

    pub(super) fn submit_as(
        &mut self,
        spec: TaskSpec,
        shape: JobShape,
        request: Option<&str>,
    ) -> (Answer, String) {
        let request = request.map(|text| RequestId::new(text).unwrap());
        let spec = Arc::new(spec);
        self.turn(Command::Submit(Submission { spec, shape, request, known: None }))
    }

    /// One task that wants `cores`.
    pub(super) fn submit_one(&mut self, cores: u64) -> String {
        self.submit(spec(cores), JobShape::Single).1
    }

    pub(super) fn cancel(&mut self, task: &str) -> (Answer, String) {
        self.turn(Command::Cancel(CancelTarget::Task(task.parse().unwrap())))
    }

    pub(super) fn report(&mut self, name: &str, session: u64, report: AttemptReport) -> String {
        self.turn(reported(name, session, vec![report], None)).1
    }

    pub(super) fn full(&mut self, name: &str, session: u64, held: Vec<AttemptReport>) -> String {
        self.heartbeat(name, session, FullReport { held, degraded: None })
    }

    pub(super) fn heartbeat(&mut self, name: &str, session: u64, full: FullReport) -> String {
        self.turn(reported(name, session, Vec::new(), Some(full))).1
    }

    /// The number of a worker's present session.
    pub(super) fn session(&self, name: &str) -> u64 {
        self.core.facts().workers[&worker(name)].record.session.0
    }

    /// How a worker stands, as a person reads it.
    pub(super) fn standing(&self, name: &str) -> Standing {
        self.core.standing_of(&worker(name))
    }

    pub(super) fn propose(&mut self, task: &str, name: &str) -> Answer {
        let placement = Placement { task: task.parse().unwrap(), worker: worker(name) };
        self.turn(Command::Propose(vec![placement])).0
    }

    /// Where a task stands: `queued`, `assigned a1 worker-1`, or its end: `failed exit(3)`.
    pub(super) fn state(&self, task: &str) -> String {
        let task: TaskId = task.parse().unwrap();
        if let Some(outcome) = self.ends.get(&task) {
            return format!("{} {}", TaskStatus::of_outcome(outcome).name(), outcome.cause);
        }
        let Some((attempt, state)) = self.core.find_current(task) else {
            let job = self.core.facts().jobs.get(&task.job);
            let fresh = job.is_some_and(|job| job.fresh.contains(task.position()));
            return if fresh { "queued".to_owned() } else { "gone".to_owned() };
        };
        match state {
            LiveState::Queued(_) => format!("queued a{}", attempt.no.0),
            LiveState::Assigned(hold) => {
                format!("assigned a{} {}", attempt.no.0, hold.worker)
            }
            LiveState::Running { hold, .. } => {
                format!("running a{} {}", attempt.no.0, hold.worker)
            }
        }
    }
}

/// Of one core and little else, so that a worker takes many.
pub(super) fn tiny() -> TaskSpec {
    let mut spec = spec(1);
    spec.needs.memory_bytes = 64 << 20;
    spec.needs.storage_bytes = 0;
    spec
}

pub(super) fn hello_of(
    name: &str,
    cores: u64,
    session: Option<u64>,
    held: Option<Vec<AttemptReport>>,
) -> WorkerHello {
    WorkerHello {
        id: worker(name),
        session: session.map(Session),
        kind: if held.is_some() { WorkerKind::Session } else { WorkerKind::Unary },
        address: "localhost:50052".to_owned(),
        capacity: Resources { cpu_milli: cores * 1000, ..big() },
        volumes: BTreeSet::new(),
        version: String::new(),
        held,
        degraded: None,
        stream: None,
    }
}

pub(super) fn reported(
    name: &str,
    session: u64,
    changes: Vec<AttemptReport>,
    full: Option<FullReport>,
) -> Command {
    let session = Some(Session(session));
    Command::Report { worker: worker(name), session, sequence: 1, changes, full }
}

fn show(worker: &WorkerId, order: &Order) -> String {
    match order {
        Order::Assign { attempt, .. } => format!("{worker}: assign {attempt}"),
        Order::Stop { attempt, reason } => format!("{worker}: stop {attempt} {reason:?}"),
        Order::Forget { attempt } => format!("{worker}: forget {attempt}"),
        Order::Acknowledge { sequence } => format!("{worker}: ack {sequence}"),
    }
}

pub(super) fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn big() -> Resources {
    Resources { cpu_milli: 0, memory_bytes: 1 << 40, storage_bytes: 1 << 40, gpu_milli: 0 }
}

pub(super) fn spec(cores: u64) -> TaskSpec {
    let needs = Resources { cpu_milli: cores * 1000, ..TaskSpec::DEFAULT_NEEDS };
    TaskSpec::new("busybox", needs)
}

pub(super) fn array(first: u32, last: u32, at_once_max: Option<u32>) -> JobShape {
    JobShape::Array { first, last, at_once_max }
}

pub(super) fn accepted(attempt: &str) -> AttemptReport {
    AttemptReport { attempt: attempt.parse().unwrap(), what: ReportWhat::Accepted }
}

pub(super) fn started(attempt: &str) -> AttemptReport {
    let what = ReportWhat::Started(Timestamp(5));
    AttemptReport { attempt: attempt.parse().unwrap(), what }
}

pub(super) fn ended(attempt: &str, cause: Cause) -> AttemptReport {
    ended_after(attempt, None, cause)
}

pub(super) fn ended_after(
    attempt: &str,
    started_at: Option<Timestamp>,
    cause: Cause,
) -> AttemptReport {
    let outcome = Outcome::new(cause, "");
    let what = ReportWhat::Ended { started_at, outcome, at: Timestamp(9) };
    AttemptReport { attempt: attempt.parse().unwrap(), what }
}
