//! What goes out: the hello of each connection, and reports of what changed or, with a heartbeat,
//! of everything. It must never wait for the master: what a broken stream lost, the next hello has.
//! Read next: `incoming.rs`.

use cloudai_failpoint::{ENABLED, failpoint};
use cloudai_model::{AttemptId, AttemptReport, Cause, Outcome, ReportWhat};
use cloudai_proto::convert::{Change, FullReport, Hello, Report, to_wire};
use cloudai_worker_core::RefusalReason;

use super::SessionLoop;
use crate::connection::Connection;
use crate::{clock, link};

/// Notes and refusals that wait for the connection; the oldest go first when there are more.
const NOTES_LEN_MAX: usize = 1024;

impl SessionLoop {
    pub(super) fn connect(&mut self) {
        let held = self.ledger.begin_stream();
        self.health.degraded.mark_unchanged();
        let degraded = self.find_degraded();
        let session = self.ledger.session();
        let hello = Hello { session, held, degraded, ..self.identity.hello.clone() };
        failpoint!("worker.hello.before_send");
        let opening = link::open(self.identity.endpoint.clone(), hello, clock::mono());
        self.connection = Connection::Opening(Box::pin(opening));
    }

    /// Sends everything that is pending as one report; there is room for it.
    pub(super) fn send_report(&mut self) {
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

    pub(super) fn tell(&mut self, change: Change) {
        if self.notes.len() == NOTES_LEN_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(change);
    }

    /// Says that an attempt ends here before it began.
    pub(super) fn refuse(&mut self, attempt: AttemptId, reason: RefusalReason) {
        let (cause, words) = match reason {
            RefusalReason::Outdated => (Cause::Infra, "it, or a later try, was here before"),
            RefusalReason::Full => (Cause::Infra, "it holds as many as it may"),
            RefusalReason::ShuttingDown => (Cause::WorkerLost, "it shuts down"),
        };
        let outcome = Outcome::new(cause, format!("the worker does not take it: {words}"));
        tracing::warn!("Refused {attempt}: {words}");
        let what = ReportWhat::Ended { started_at: None, outcome, at: clock::wall() };
        self.tell(Change::State(AttemptReport { attempt, what }));
    }

    /// Why this worker should get nothing new.
    pub(super) fn find_degraded(&self) -> Option<String> {
        if self.ledger.is_shutting_down() {
            return Some("it shuts down".to_owned());
        }
        self.health.degraded.borrow().clone()
    }
}

fn is_end(report: &AttemptReport) -> bool {
    matches!(report.what, ReportWhat::Ended { .. })
}
