//! The worker's main loop: one task owns the ledger, and everything that happens comes to it: the
//! master's orders, what becomes known of attempts, and time. It carries out the ledger's effects
//! and keeps a session with the master, for ever. It must never wait for anything while something
//! else happens: each wait is one branch of one `select!`.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::ExponentialBackoff;
use cloudai_failpoint::{ENABLED, failpoint};
use cloudai_model::{
    AttemptId, AttemptReport, Cause, Monotonic, Outcome, ReportWhat, TaskSpec, limits,
};
use cloudai_proto::cluster::{SessionDown, session_down};
use cloudai_proto::convert::{Change, FullReport, Hello, Orders, Report, from_wire, to_wire};
use cloudai_worker_core::{Effect, Input, LeaseTimes, Ledger, LedgerConfig, RefusalReason};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::Endpoint;

use crate::adopt::Resumed;
use crate::clock;
use crate::config::WorkerError;
use crate::connection::{Connection, Signal, say_goodbye};
use crate::executor::StopRequest;
use crate::health::Health;
use crate::link::{self, Link, LinkError};
use crate::run::{self, RunContext, RunEvent, RunHandle, RunWhat};
use crate::telemetry::{self, Telemetry};
use crate::uplink;

/// Events of attempts that wait for the loop; attempts wait when it is full.
const EVENTS_LEN_MAX: usize = 4096;
/// Notes and refusals that wait for the connection; the oldest go first when there are more.
const NOTES_LEN_MAX: usize = 1024;
/// How long the end of the process waits for the master to store what ended here.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(5);
/// What a stop may take beyond the grace of the longest attempt.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// What a session is opened with.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The hello; its session, what is held and the challenge's nonce are filled in each time.
    pub(crate) hello: Hello,
    /// The master's address, for people.
    pub(crate) master: String,
    /// How it is reached.
    pub(crate) endpoint: Endpoint,
    /// Whether the first failure is the last.
    pub(crate) once: bool,
    /// The port of the unary server, for people.
    pub(crate) port: u16,
}

/// What an earlier process left to this one.
#[derive(Debug, Default)]
pub(crate) struct Heritage {
    /// Attempts that go on.
    pub(crate) attempts: Vec<Resumed>,
    /// Until when their leases run.
    pub(crate) lease: LeaseTimes,
}

/// The loop and all that it owns.
pub(crate) struct SessionLoop {
    identity: Identity,
    context: Arc<RunContext>,
    telemetry: Telemetry,
    health: Health,
    ledger: Ledger,
    runs: HashMap<AttemptId, RunHandle>,
    events: mpsc::Receiver<RunEvent>,
    events_sender: mpsc::Sender<RunEvent>,
    connection: Connection,
    pauses: ExponentialBackoff,
    notes: VecDeque<Change>,
    full_due: bool,
    greeted: bool,
    /// When the leases began anew, for whoever keeps it.
    renewed: watch::Sender<Monotonic>,
    /// Scratch space of `step`.
    effects: Vec<Effect>,
    /// Scratch space of `turn`.
    batch: Vec<RunEvent>,
}

impl SessionLoop {
    /// A loop that is about to connect for the first time, with what goes on from before.
    pub(crate) fn new(
        identity: Identity,
        context: Arc<RunContext>,
        telemetry: Telemetry,
        health: Health,
        config: LedgerConfig,
        heritage: Heritage,
    ) -> Self {
        let (events_sender, events) = mpsc::channel(EVENTS_LEN_MAX);
        let restored = heritage.attempts.iter().map(Resumed::restored).collect();
        let ledger = Ledger::restore(config, heritage.lease, restored);
        let resume = |resumed: Resumed| {
            let attempt = resumed.kept.attempt;
            (attempt, run::resume(&context, resumed, events_sender.clone()))
        };
        let runs = heritage.attempts.into_iter().map(resume).collect();
        context.live_count.set(ledger.live_count());
        Self {
            identity,
            context,
            telemetry,
            health,
            renewed: watch::Sender::new(ledger.renewed_at()),
            ledger,
            runs,
            events,
            events_sender,
            connection: Connection::Waiting(Box::pin(tokio::time::sleep(Duration::ZERO))),
            pauses: uplink::pauses(),
            notes: VecDeque::new(),
            full_due: false,
            greeted: false,
            effects: Vec::new(),
            batch: Vec::new(),
        }
    }

    /// Runs until `shutdown` is ready and everything has stopped, or the master will not have this
    /// worker.
    pub(crate) async fn run(
        mut self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let served = self.serve(shutdown).await;
        self.close(served.is_ok()).await;
        served
    }

    async fn serve(&mut self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => {
                    tracing::info!("Shutting down worker...");
                    return Ok(());
                }
                result = self.turn() => result?,
            }
        }
    }

    /// Waits for the next thing that happens and deals with it.
    async fn turn(&mut self) -> Result<(), WorkerError> {
        let wants_to_send = self.full_due || self.ledger.has_news() || !self.notes.is_empty();
        let deadline = self.ledger.next_deadline();
        tokio::select! {
            signal = self.connection.next(wants_to_send) => self.on_signal(signal),
            _ = self.events.recv_many(&mut self.batch, EVENTS_LEN_MAX) => {
                let mut batch = std::mem::take(&mut self.batch);
                for event in batch.drain(..) {
                    self.on_event(event);
                }
                self.batch = batch;
                Ok(())
            }
            Ok(()) = self.health.degraded.changed() => {
                self.full_due = true;
                Ok(())
            }
            () = sleep_until(deadline) => {
                self.step(Input::Tick);
                Ok(())
            }
        }
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), WorkerError> {
        match signal {
            Signal::TryAgain => self.connect(),
            Signal::Opened(Ok(link)) => self.on_welcome(link),
            Signal::Opened(Err(error)) => return self.on_link_error(error),
            Signal::Heartbeat => self.full_due = true,
            Signal::MaySend => self.send_report(),
            Signal::Down(message) => return self.on_message(message),
        }
        Ok(())
    }

    fn connect(&mut self) {
        let held = self.ledger.begin_stream();
        self.health.degraded.mark_unchanged();
        let degraded = self.find_degraded();
        let session = self.ledger.session();
        let hello = Hello { session, held, degraded, ..self.identity.hello.clone() };
        failpoint!("worker.hello.before_send");
        let opening = link::open(self.identity.endpoint.clone(), hello, clock::mono());
        self.connection = Connection::Opening(Box::pin(opening));
    }

    fn on_welcome(&mut self, link: Link) {
        let (session, hello_sent_at) = (link.session, link.hello_sent_at);
        self.connection = Connection::Open(Box::new(link));
        self.pauses = uplink::pauses();
        self.context.session.store(session.0, Ordering::Relaxed);
        failpoint!("worker.welcome.received");
        self.context.welcomed.cancel();
        self.step(Input::Welcomed { session, hello_sent_at });
        tracing::info!("Worker registered successfully");
        if !self.greeted {
            self.greeted = true;
            let id = &self.identity.hello.worker.id;
            let seconds = telemetry::INTERVAL.as_secs();
            tracing::info!("Starting telemetry monitor (interval: {seconds}s)");
            tracing::info!("Worker {id} started successfully");
            tracing::info!("gRPC server listening on :{}", self.identity.port);
            tracing::info!("Ready to receive tasks");
        }
    }

    fn on_link_error(&mut self, error: LinkError) -> Result<(), WorkerError> {
        let was_open = matches!(self.connection, Connection::Open(_));
        let pause = uplink::next_pause(&mut self.pauses);
        self.connection = Connection::Waiting(Box::pin(tokio::time::sleep(pause)));
        match error {
            LinkError::Superseded(message) => {
                let id = self.identity.hello.worker.id.clone();
                return Err(WorkerError::Superseded { id, message });
            }
            LinkError::Invalid(message) if !self.greeted => {
                return Err(WorkerError::Rejected { message });
            }
            LinkError::SessionUnknown => self.step(Input::SessionUnknown),
            _ => {}
        }
        let master = &self.identity.master;
        if self.identity.once && !self.greeted {
            let (master, why) = (master.clone(), error.to_string());
            return Err(WorkerError::Register { master, why });
        }
        let what = match (was_open, self.greeted) {
            (true, _) => "Lost the session with",
            (false, true) => "Failed to reconnect to",
            (false, false) => "Failed to register with",
        };
        let seconds = pause.as_secs_f32();
        tracing::warn!("{what} master at {master}: {error}. Next try in {seconds:.1} s");
        Ok(())
    }

    fn on_message(
        &mut self,
        message: Result<Option<SessionDown>, Status>,
    ) -> Result<(), WorkerError> {
        let error = match message {
            Ok(Some(SessionDown { message: Some(session_down::Message::Orders(orders)) })) => {
                match from_wire::orders(orders) {
                    Ok(orders) => {
                        self.on_orders(orders);
                        return Ok(());
                    }
                    Err(error) => LinkError::Nonsense(error.to_string()),
                }
            }
            Ok(Some(SessionDown { message: Some(session_down::Message::Refused(refused)) })) => {
                refused.into()
            }
            // A message of a kind that this worker does not know yet.
            Ok(Some(_)) => return Ok(()),
            Ok(None) => LinkError::Unreachable("the master ended the session".to_owned()),
            Err(status) => LinkError::Unreachable(uplink::words(&status)),
        };
        self.on_link_error(error)
    }

    fn on_orders(&mut self, orders: Orders) {
        if orders.acknowledged > 0 {
            self.step(Input::Acknowledged { sequence: orders.acknowledged });
        }
        for attempt in orders.forget {
            failpoint!("worker.forget.received");
            if self.runs.contains_key(&attempt) {
                tracing::info!("Task result reported: {}", name(attempt));
            }
            self.step(Input::Forget { attempt });
        }
        for (attempt, reason) in orders.stop {
            failpoint!("worker.stop.received");
            self.step(Input::Stop { attempt, reason });
            failpoint!("worker.stop.requested");
        }
        for (attempt, spec) in orders.assign {
            failpoint!("worker.assign.received");
            self.step(Input::Assign { attempt, spec });
        }
    }

    fn on_event(&mut self, event: RunEvent) {
        let RunEvent { attempt, what } = event;
        match what {
            RunWhat::Note(at, text) => {
                tracing::debug!("[{}] {text}", name(attempt));
                self.tell(Change::Note { attempt, at, text });
            }
            RunWhat::Started(at) => self.step(Input::Started { attempt, at }),
            RunWhat::Ended(outcome, at) => {
                say_ended(attempt, &outcome);
                self.step(Input::Ended { attempt, outcome, at });
            }
            RunWhat::Delivered => {
                failpoint!("worker.delivered.before_report");
                self.step(Input::Delivered { attempt });
            }
        }
    }

    /// Gives an input to the ledger and carries out what comes of it.
    fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.ledger.step(clock::mono(), input, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Start { attempt, spec } => self.start(attempt, spec),
                Effect::Stop { attempt, cause, grace_ms } => self.stop(attempt, cause, grace_ms),
                Effect::Drop { attempt } => {
                    if let Some(run) = self.runs.remove(&attempt) {
                        run.drop.cancel();
                    }
                }
                Effect::Refuse { attempt, reason } => self.refuse(attempt, reason),
            }
        }
        self.context.live_count.set(self.ledger.live_count());
        let renewed_at = self.ledger.renewed_at();
        self.renewed.send_if_modified(|known| std::mem::replace(known, renewed_at) != renewed_at);
        // What `start` did with the scratch space meanwhile is empty again.
        self.effects = effects;
    }

    fn tell(&mut self, change: Change) {
        if self.notes.len() == NOTES_LEN_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(change);
    }

    /// Says that an attempt ends here before it began.
    fn refuse(&mut self, attempt: AttemptId, reason: RefusalReason) {
        tracing::warn!("Refused {attempt}: {reason:?}");
        let (cause, words) = match reason {
            RefusalReason::Outdated => (Cause::Infra, "it, or a later try, was here before"),
            RefusalReason::Full => (Cause::Infra, "it holds as many as it may"),
            RefusalReason::ShuttingDown => (Cause::WorkerLost, "it shuts down"),
        };
        let outcome = Outcome::new(cause, format!("the worker does not take it: {words}"));
        let what = ReportWhat::Ended { started_at: None, outcome, at: clock::wall() };
        self.tell(Change::State(AttemptReport { attempt, what }));
    }

    fn start(&mut self, attempt: AttemptId, spec: Arc<TaskSpec>) {
        if let Some(outcome) = self.context.executor.find_instant(&spec) {
            self.step(Input::Ended { attempt, outcome, at: clock::wall() });
            self.step(Input::Delivered { attempt });
            return;
        }
        tracing::info!("Task received: {} (image: {})", name(attempt), spec.image);
        let session = self.ledger.session().unwrap_or_default();
        let events = self.events_sender.clone();
        let run = run::start(&self.context, attempt, session, spec, events);
        self.runs.insert(attempt, run);
    }

    fn stop(&mut self, attempt: AttemptId, cause: Cause, grace_ms: u64) {
        tracing::info!("Stopping task {}: {cause}", name(attempt));
        if let Some(run) = self.runs.get(&attempt) {
            run.live.request_stop(StopRequest { cause, grace_ms });
        }
    }

    /// Sends everything that is pending as one report; there is room for it.
    fn send_report(&mut self) {
        let Connection::Open(link) = &self.connection else { return };
        let outgoing = self.ledger.take_report(clock::mono(), std::mem::take(&mut self.full_due));
        let usage = *self.telemetry.usage.borrow();
        let degraded = self.find_degraded();
        if outgoing.full.is_some() {
            tracing::debug!("Heartbeat: {} attempts held, {usage:?}", self.ledger.held_count());
        }
        let tells_end = ENABLED && outgoing.changes.iter().any(is_end);
        let states = outgoing.changes.into_iter().map(Change::State);
        let report = Report {
            sequence: outgoing.sequence,
            changes: self.notes.drain(..).chain(states).collect(),
            full: outgoing.full.map(|held| FullReport { held, usage, degraded }),
        };
        // A stream that broke meanwhile says so by its other end, and the next hello has it all.
        let _ = link.up.try_send(to_wire::report(&report));
        if tells_end {
            failpoint!("worker.report_ended.after_send");
        }
    }

    /// Why this worker should get nothing new.
    fn find_degraded(&self) -> Option<String> {
        if self.ledger.is_shutting_down() {
            return Some("it shuts down".to_owned());
        }
        self.health.degraded.borrow().clone()
    }

    /// Stops what runs, hands over what ended, says goodbye and leaves nothing behind. `serves` is
    /// whether the master still wants to hear of this worker.
    async fn close(mut self, mut serves: bool) {
        self.context.tracker.close();
        self.step(Input::ShutDown);
        self.full_due = true;
        self.context.live.stop_all(Cause::WorkerLost);
        let longest = Duration::from_millis(limits::GRACE_MS_MAX) + STOP_MARGIN;
        if tokio::time::timeout(longest, self.wait_stopped(&mut serves)).await.is_err() {
            tracing::error!("{} attempts would not stop", self.ledger.live_count());
        }
        if serves {
            // What is not handed over by then, the next process hands over.
            let _ = tokio::time::timeout(DELIVERY_PATIENCE, self.wait_delivered()).await;
        }
        let owed = self.ledger.owed_count();
        if owed > 0 && self.context.executor.outlives_process() {
            // A goodbye would end these attempts for the master without their results.
            tracing::warn!("The master does not have {owed} results: the next process brings them");
        } else if let Connection::Open(link) = self.connection
            && say_goodbye(*link).await
        {
            // The master gives everything to others; what it has not heard, nobody needs.
            for run in self.runs.values() {
                run.drop.cancel();
            }
        }
        drop(self.events);
        self.context.closing.cancel();
        if tokio::time::timeout(STOP_MARGIN, self.context.tracker.wait()).await.is_err() {
            tracing::error!("The files of {} attempts are left behind", self.context.tracker.len());
        }
    }

    /// Goes on with the session until nothing runs: its leases must last through the grace.
    async fn wait_stopped(&mut self, serves: &mut bool) {
        while self.ledger.live_count() > 0 {
            if *serves {
                *serves = self.turn().await.is_ok();
            } else if let Some(event) = self.events.recv().await {
                self.on_event(event);
            }
        }
    }

    /// Goes on until the master has stored every result, or is away.
    async fn wait_delivered(&mut self) {
        while self.ledger.owed_count() > 0 && matches!(self.connection, Connection::Open(_)) {
            if self.turn().await.is_err() {
                return;
            }
        }
    }

    /// A hand on when the leases begin anew.
    pub(crate) fn renewals(&self) -> watch::Receiver<Monotonic> {
        self.renewed.subscribe()
    }
}

fn is_end(report: &AttemptReport) -> bool {
    matches!(report.what, ReportWhat::Ended { .. })
}

async fn sleep_until(deadline: Option<Monotonic>) {
    match deadline {
        Some(at) => clock::wait_until(at).await,
        None => std::future::pending().await,
    }
}

fn say_ended(attempt: AttemptId, outcome: &Outcome) {
    let status = to_wire::status_word(outcome.cause);
    let why = if outcome.message.is_empty() { "" } else { ": " };
    let (name, cause, message) = (name(attempt), outcome.cause, &outcome.message);
    tracing::info!("Task completed: {name} [Status: {status}, {cause}{why}{message}]");
}

/// A task as people know it; the number of the try only when it is not the first.
fn name(attempt: AttemptId) -> String {
    match attempt.no.0 {
        1 => attempt.task.to_string(),
        no => format!("{} (attempt {no})", attempt.task),
    }
}
