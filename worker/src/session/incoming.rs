//! What comes in, and what it means to the ledger: the master's welcome and orders, the end of a
//! connection, and what becomes known of attempts. It must never trust an order more than the
//! ledger does. Read next: `outgoing.rs`.

use std::sync::atomic::Ordering;

use cloudai_failpoint::failpoint;
use cloudai_model::{AttemptId, Outcome};
use cloudai_proto::cluster::{SessionDown, session_down};
use cloudai_proto::convert::{Change, Orders, from_wire, to_wire};
use cloudai_worker_core::Input;
use tonic::Status;

use super::{SessionLoop, name};
use crate::config::WorkerError;
use crate::connection::Connection;
use crate::link::{Link, LinkError};
use crate::run::{RunEvent, RunWhat};
use crate::{telemetry, uplink};

impl SessionLoop {
    pub(super) fn on_welcome(&mut self, link: Link) {
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

    pub(super) fn on_link_error(&mut self, error: LinkError) -> Result<(), WorkerError> {
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

    pub(super) fn on_message(
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
        }
        for (attempt, spec) in orders.assign {
            failpoint!("worker.assign.received");
            self.step(Input::Assign { attempt, spec });
        }
    }

    pub(super) fn on_event(&mut self, event: RunEvent) {
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
}

fn say_ended(attempt: AttemptId, outcome: &Outcome) {
    let status = to_wire::status_word(outcome.cause);
    let why = if outcome.message.is_empty() { "" } else { ": " };
    let (name, cause, message) = (name(attempt), outcome.cause, &outcome.message);
    tracing::info!("Task completed: {name} [Status: {status}, {cause}{why}{message}]");
}
