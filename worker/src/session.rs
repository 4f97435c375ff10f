//! The worker's main loop: one task owns the ledger, and everything that happens comes to it: the
//! master's orders, what becomes known of attempts, and time. It carries out the ledger's effects
//! and keeps a session with the master, for ever. It must never wait for anything while something
//! else happens: each wait is one branch of one `select!`. Read next: `session/incoming.rs` (what
//! is heard) and `session/outgoing.rs` (what is said).

mod incoming;
mod outgoing;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use cloudai_model::{AttemptId, Cause, Monotonic, TaskSpec, limits};
use cloudai_proto::convert::{Change, Hello};
use cloudai_worker_core::{Effect, Input, LeaseTimes, Ledger, LedgerConfig};
use tokio::sync::{mpsc, watch};
use tonic::transport::Endpoint;

use crate::adopt::Resumed;
use crate::clock;
use crate::config::WorkerError;
use crate::connection::{Connection, Signal, say_goodbye};
use crate::executor::StopRequest;
use crate::health::Health;
use crate::run::{self, RunContext, RunEvent, RunHandle};
use crate::telemetry::Telemetry;
use crate::uplink;

/// Events of attempts that wait for the loop; attempts wait when it is full.
const EVENTS_LEN_MAX: usize = 4096;
/// How long the end of the process waits for the master to store what ended here.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(5);
/// What a stop may take beyond the grace of the longest attempt.
const STOP_MARGIN: Duration = Duration::from_secs(20);

/// Why an attempt is stopped that nobody asked to stop.
const LEASE_OVER: &str = "its lease is over, the master was not heard; it may run elsewhere now";

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

    /// Gives an input to the ledger and carries out what comes of it.
    fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        let is_lease = matches!(input, Input::Tick);
        self.ledger.step(clock::mono(), input, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Start { attempt, spec } => self.start(attempt, spec),
                Effect::Stop { attempt, cause, grace_ms } => {
                    let why = if is_lease { LEASE_OVER.to_owned() } else { cause.to_string() };
                    tracing::info!("Stopping task {}: {why}", name(attempt));
                    self.stop(attempt, cause, grace_ms);
                }
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
        if let Some(run) = self.runs.get(&attempt) {
            run.live.request_stop(StopRequest { cause, grace_ms });
        }
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
                continue;
            }
            let deadline = self.ledger.next_deadline();
            tokio::select! {
                Some(event) = self.events.recv() => self.on_event(event),
                () = sleep_until(deadline) => self.step(Input::Tick),
            }
        }
    }

    /// Goes on until the master has every log and file, and has stored every result, or is away.
    async fn wait_delivered(&mut self) {
        while self.ledger.undelivered_count() > 0 && matches!(self.connection, Connection::Open(_))
        {
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

async fn sleep_until(deadline: Option<Monotonic>) {
    match deadline {
        Some(at) => clock::wait_until(at).await,
        None => std::future::pending().await,
    }
}

/// A task as people know it; the number of the try only when it is not the first.
fn name(attempt: AttemptId) -> String {
    match attempt.no.0 {
        1 => attempt.task.to_string(),
        no => format!("{} (attempt {no})", attempt.task),
    }
}
